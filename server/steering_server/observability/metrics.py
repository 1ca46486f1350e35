"""The metrics of one server, in a registry of their own.

Where the meaning is the same they have vLLM's names, so that its dashboards and autoscalers work; a *request* in those
names is one sequence. The others begin with ``steering_`` or, for HTTP, have the names of FastAPI's instrumentator.
"""

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from steering_profiles import __version__
from steering_server.generation.backend import Backend
from steering_server.observability.engine_metrics import EngineCollector
from steering_server.observability.experiment_metrics import ExperimentCollector
from steering_server.observability.labels import BoundedValues
from steering_server.observability.sequence_metrics import SequenceMetrics

if TYPE_CHECKING:
    from steering_server.experiments.live import Experiments

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_MAX_CODES = 64
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

disable_created_metrics()  # a second series for each, which Prometheus has no use for


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "http_requests",
            "HTTP requests answered, by route, method and status. 499: the client closed the connection first.",
            ["handler", "method", "status"],
            registry=self._registry,
        )
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Time from a request's headers to the end of its answer.",
            ["handler", "method"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._errors = Counter(
            "steering_request_errors",
            "Errors in answers, also inside streams, by the answer's error.code or, where there is none, error.type.",
            ["code"],
            registry=self._registry,
        )
        self._code = BoundedValues(_MAX_CODES)

    def open(self, backend: Backend) -> SequenceMetrics:
        """Add the metrics of a loaded backend; return those of its sequences."""
        model = backend.model
        Gauge(
            "steering_server_info",
            "Always 1; the labels say what is served.",
            ["version", "model_name", "dtype", "batch_invariant"],
            registry=self._registry,
        ).labels(__version__, model.name, model.dtype, str(model.batch_invariance.holds).lower()).set(1)
        self._registry.register(EngineCollector(backend))
        return SequenceMetrics(self._registry, model.name)

    def open_experiments(self, experiments: "Experiments") -> None:
        """Add the metrics of a server's experiments."""
        self._registry.register(ExperimentCollector(experiments))

    def request_ended(self, handler: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request. ``handler`` is a route of the server, or ``other``."""
        self._requests.labels(handler, method, str(status)).inc()
        self._durations.labels(handler, method).observe(seconds)

    def failed(self, code: str) -> None:
        """Count an error by its code."""
        self._errors.labels(self._code(code)).inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format, whose content type is ``CONTENT_TYPE``."""
        return generate_latest(self._registry)
