"""A server's life: it answers while its model is loaded, serves, and lets running requests finish when it stops."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn

from steering_server.api.app import create_app
from steering_server.api.service import Service
from steering_server.generation.backend import Backend

LAST_WORDS_SECONDS = 5
"""How long what was cut off may take to be told so."""

_log = structlog.get_logger("steering_server.api")


async def live(
    listener: socket.socket,
    loading: Future[Backend],
    stop: asyncio.Event,
    *,
    grace: float,
    ready: Callable[[Backend], None],
    keep_alive: float = 75,
) -> None:
    """Answer on ``listener`` at once, serve what ``loading`` gives, and end when ``stop`` is set.

    ``ready`` is called when requests can be served. After ``stop`` no new work is taken, and what runs has ``grace``
    seconds to finish. A ``stop`` before the end of ``loading`` does not wait for it. A connection on which nothing is
    asked for ``keep_alive`` seconds is closed.

    Raises:
        Exception: whatever ``loading`` failed with.
    """
    service = Service()
    server = _Server(
        uvicorn.Config(
            create_app(service),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=LAST_WORDS_SECONDS,
            timeout_keep_alive=keep_alive,  # type: ignore[arg-type]  # a timer's delay, which may be a fraction
        )
    )
    answering = asyncio.create_task(server.serve([listener]))
    try:
        backend = await _unless_stopped(loading, stop)
        if backend is not None:
            await backend.start()
            service.open(backend)
            ready(backend)
            await stop.wait()
            service.drain()
            await _finish(service, grace)
            await backend.close()  # tells whatever still runs
    finally:
        server.should_exit = True
        await answering


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would close its port at once, and its streams with it."""
        yield


async def _unless_stopped(loading: Future[Backend], stop: asyncio.Event) -> Backend | None:
    loaded = asyncio.wrap_future(loading)
    stopped = asyncio.create_task(stop.wait())
    either: set[asyncio.Future[Any]] = {loaded, stopped}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    return loaded.result() if loaded.done() else None


async def _finish(service: Service, grace: float) -> None:
    if service.running:
        _log.info("draining", running=service.running, grace=grace)
    if not await service.idle(grace):
        _log.warning("grace_is_over", running=service.running, grace=grace)
