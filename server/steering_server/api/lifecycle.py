"""The life of a server: it answers while the model is loading, serves, and finishes running requests when it stops."""

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
"""Seconds that cancelled requests have to receive their error."""

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
    """Answer on ``listener`` at once, serve the backend from ``loading``, and return after ``stop`` is set.

    ``ready`` is called when requests can be served. After ``stop`` new requests are refused, and running ones have
    ``grace`` seconds to finish. A ``stop`` during ``loading`` does not wait for its end. An idle connection is closed
    after ``keep_alive`` seconds.

    Raises:
        Exception: the exception of ``loading``, if it failed.
    """
    service = Service()
    server = _Server(
        uvicorn.Config(
            create_app(service),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=LAST_WORDS_SECONDS,
            timeout_keep_alive=keep_alive,  # type: ignore[arg-type]  # a delay, for which a float works too
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
            await backend.close()  # ends requests that still run with an error
    finally:
        server.should_exit = True
        await answering


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller: uvicorn would close its port at once, and running streams with it."""
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
