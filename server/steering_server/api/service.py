"""The backend behind the application and its state: loading, then ready, then draining."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from steering_server.errors import Unavailable
from steering_server.generation.backend import Backend


class Service:
    """A backend, from before it is loaded until its last request is answered."""

    def __init__(self, backend: Backend | None = None) -> None:
        self._backend = backend
        self._draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

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
        self._backend = backend

    def drain(self) -> None:
        """Refuse new requests; running ones continue."""
        self._draining = True

    def require_ready(self) -> Backend:
        """Return the backend if requests are accepted.

        Raises:
            Unavailable: the model is being loaded, or the server is stopping.
        """
        if self._draining:
            raise Unavailable("the server is stopping and takes no new requests", code="draining")
        return self.backend

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
