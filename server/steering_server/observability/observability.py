"""All that observes one server."""

from functools import partial
from typing import TYPE_CHECKING

import anyio

from steering_server.generation.backend import Backend
from steering_server.limits import MetricsAccess
from steering_server.observability.backend import ObservedBackend
from steering_server.observability.metrics import Metrics
from steering_server.observability.sequence import Watch

if TYPE_CHECKING:
    from steering_server.observability.tracing import Tracing

LAST_TRACES_SECONDS = 3
"""Seconds for the last traces; the endpoint may not answer."""


class Observability:
    """The metrics and the traces of one server; each may be off."""

    def __init__(self, access: MetricsAccess = "key", tracing: "Tracing | None" = None) -> None:
        self.access = access
        self.metrics = None if access == "off" else Metrics()
        self.tracing = tracing

    def observe(self, backend: Backend) -> Backend:
        """Return ``backend``, observed."""
        watches: list[Watch] = []
        if self.metrics is not None:
            watches.append(self.metrics.open(backend).watch)
        if self.tracing is not None:
            watches.append(partial(self.tracing.watch, model=backend.model.name))
        return ObservedBackend(backend, watches) if watches else backend

    async def close(self) -> None:
        """Send the traces that are left, for at most ``LAST_TRACES_SECONDS``."""
        if self.tracing is not None:
            with anyio.move_on_after(LAST_TRACES_SECONDS):
                await anyio.to_thread.run_sync(self.tracing.close, abandon_on_cancel=True)
