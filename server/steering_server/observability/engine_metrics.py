"""The state of the engine as metrics, read when they are asked for."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from steering_server.generation.backend import Backend


class EngineCollector(Collector):
    """Reads the state of a backend's engine once for every time that metrics are asked for."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the engine."""
        stats, model = self._backend.stats(), self._backend.model.name
        gauges = {
            "vllm:num_requests_running": ("Sequences that run.", stats.running),
            "vllm:num_requests_waiting": ("Sequences that wait to run, preempted ones included.", stats.waiting),
            "vllm:kv_cache_usage_perc": (
                "Share of the KV cache memory that running sequences hold; 1 means all of it.",
                stats.kv_cache_running / stats.kv_cache_capacity,
            ),
            "steering_kv_cache_capacity_bytes": ("KV cache memory in all.", stats.kv_cache_capacity),
        }
        for name, (meaning, value) in gauges.items():
            gauge = GaugeMetricFamily(name, meaning, labels=["model_name"])
            gauge.add_metric([model], value)
            yield gauge
        used = GaugeMetricFamily(
            "steering_kv_cache_used_bytes",
            "KV cache memory of running sequences, and of finished ones that is kept for sequences that begin alike.",
            labels=["model_name", "state"],
        )
        used.add_metric([model, "running"], stats.kv_cache_running)
        used.add_metric([model, "kept"], stats.kv_cache_kept)
        yield used
        counters = {
            "vllm:num_preemptions": ("Sequences preempted, each time counted.", stats.preemptions),
            "vllm:prefix_cache_queries": ("Tokens looked up in the prefix cache.", stats.prefix_cache_queries),
            "vllm:prefix_cache_hits": ("Tokens found in the prefix cache.", stats.prefix_cache_hits),
        }
        for name, (meaning, value) in counters.items():
            counter = CounterMetricFamily(name, meaning, labels=["model_name"])
            counter.add_metric([model], value)
            yield counter
