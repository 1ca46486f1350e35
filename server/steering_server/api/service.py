"""The backend behind the application and its state: loading, then ready, then draining."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from steering_server.errors import Unavailable
from steering_server.generation.backend import Backend
from steering_server.observability.observability import Observability

if TYPE_CHECKING:
    from steering_server.experiments.live import Experiments


class Service:
    """A backend, from before it is loaded until its last request is answered."""

    def __init__(
        self,
        backend: Backend | None = None,
        observability: Observability | None = None,
        experiments: "Experiments | None" = None,
    ) -> None:
        self.observability = observability or Observability()
        self.experiments = experiments
        """The experiments on the requests of this service; None where there is no database for them."""
        self._backend: Backend | None = None
        self._draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        if backend is not None:
            self.open(backend)

    @property
    def backend(self) -> Backend:
        """The backend that answers requests.

        Raises:
            Unavailable: it is not loaded yet.
        """
        if self._backend is None:
            raise Unavailable("the model is being loaded; try again later", code="loading")
        return self._backend

    @property
    def running(self) -> int:
        """Number of running requests."""
        return self._running

    def open(self, backend: Backend) -> None:
        """Begin to accept requests; ``backend`` is loaded and started."""
        self._backend = self.observability.observe(backend)
        if self.experiments is not None and self.observability.metrics is not None:
            self.observability.metrics.open_experiments(self.experiments)

    def drain(self) -> None:
        """Refuse new requests; running ones continue."""
        self._draining = True

    def require_ready(self) -> Backend:
        """Return the backend if requests are accepted.

        Raises:
            Unavailable: the model is being loaded, the server is stopping, or its engine has ended.
        """
        if self._draining:
            raise Unavailable("the server is stopping and takes no new requests", code="draining")
        backend = self.backend
        if (reason := backend.failure()) is not None:
            raise Unavailable(f"the server can serve no more: {reason}", code="engine_ended")
        return backend

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count one request as running inside this context."""
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def idle(self, seconds: float) -> bool:
        """Wait until no request runs, for at most ``seconds``; return whether that is the case."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
        return self._idle.is_set()
