"""What a server has done for experiments as metrics, read when they are asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from steering_server.experiments.live import Experiments


class ExperimentCollector(Collector):
    """Reads the state of a server's experiments once for every time that metrics are asked for."""

    def __init__(self, experiments: "Experiments") -> None:
        self._experiments = experiments

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of experiments."""
        counts = self._experiments.recorder.counts()
        yield GaugeMetricFamily("steering_experiments_running", "Experiments that run.", len(self._experiments.names))
        yield GaugeMetricFamily("steering_exposures_queued", "Exposures that wait to be stored.", counts.queued)
        yield CounterMetricFamily("steering_exposures_stored", "Exposures stored in the database.", counts.stored)
        yield CounterMetricFamily(
            "steering_exposures_lost", "Exposures that were dropped because the queue was full.", counts.lost
        )
        yield CounterMetricFamily("steering_outcomes_stored", "Outcomes stored.", self._experiments.outcomes_stored)
        left_out = CounterMetricFamily(
            "steering_experiment_requests_left_out",
            "Requests that a running experiment could not have: no_unit, arm_not_available or arm_not_allowed.",
            labels=["reason"],
        )
        for reason, number in sorted(self._experiments.left_out.items()):
            left_out.add_metric([reason], number)
        yield left_out
