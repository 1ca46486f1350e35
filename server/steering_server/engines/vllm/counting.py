"""What vLLM counts, for the metrics of this server."""

from collections.abc import Callable
from typing import Any

from steering_server.generation.backend import EngineStats


class Counted:
    """The state of vLLM's scheduler at its last step, and what it has counted since it was started."""

    def __init__(self) -> None:
        self._running = self._waiting = 0
        self._preemptions = 0
        self._used = 0.0
        self._queries = self._hits = 0
        self.capacity = 0
        """Bytes of the KV cache."""

    def record(self, scheduler: Any, iteration: Any) -> None:
        """Take what vLLM reports of one step; either may be None."""
        if scheduler is not None:
            self._running, self._waiting = scheduler.num_running_reqs, scheduler.num_waiting_reqs
            self._used = scheduler.kv_cache_usage
            self._queries += scheduler.prefix_cache_stats.queries
            self._hits += scheduler.prefix_cache_stats.hits
        if iteration is not None:
            self._preemptions += iteration.num_preempted_reqs

    def stats(self) -> EngineStats:
        """Return the state."""
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            preemptions=self._preemptions,
            kv_cache_running=round(self._used * self.capacity),
            kv_cache_kept=0,  # vLLM counts blocks that only the prefix cache holds as free
            kv_cache_capacity=self.capacity,
            prefix_cache_queries=self._queries,
            prefix_cache_hits=self._hits,
        )


def stat_logger(counted: Counted) -> Callable[..., Any]:
    """Return a factory of a logger, as vLLM wants it, that reports to ``counted``."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    def record(
        self: Any, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        counted.record(scheduler_stats, iteration_stats)

    def log_engine_initialized(self: Any) -> None:
        return None

    def __init__(self: Any, vllm_config: Any, engine_index: int = 0) -> None:
        return None

    methods = (__init__, record, log_engine_initialized)
    made: Callable[..., Any] = type("StatLogger", (StatLoggerBase,), {method.__name__: method for method in methods})
    return made
