"""The life of a server: it answers while the model is loading, serves, and finishes running requests when it stops."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import structlog
import uvicorn

from steering_server.api.app import create_app
from steering_server.api.connections import LimitedConnection
from steering_server.api.service import Service
from steering_server.api.settings import ApiSettings
from steering_server.api.watching import watch_profiles
from steering_server.generation.backend import Backend
from steering_server.observability.observability import Observability

if TYPE_CHECKING:
    from steering_server.experiments.live import Experiments

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
    settings: ApiSettings | None = None,
    observability: Observability | None = None,
    experiments: "Experiments | None" = None,
    profiles_poll: float = 1,
    reload: asyncio.Event | None = None,
) -> None:
    """Answer on ``listener`` at once, serve the backend from ``loading``, and return after ``stop`` is set.

    ``ready`` is called when requests can be served. After ``stop`` new requests are refused, and running ones have
    ``grace`` seconds to finish. A ``stop`` during ``loading`` does not wait for its end. By default
    ``observability`` is metrics and no traces. ``experiments``, of which there are none by default, are closed at the
    end. The folder of profiles is looked at for changes every ``profiles_poll``
    seconds (never, if 0), and read again when ``reload`` is set.

    Raises:
        Exception: the exception of ``loading``, if it failed.
    """
    settings = settings or ApiSettings()
    service, connections = Service(observability=observability, experiments=experiments), settings.connections
    server = _Server(
        uvicorn.Config(
            create_app(service, settings),
            lifespan="off",
            http=partial(LimitedConnection, limits=connections),  # type: ignore[arg-type]  # makes such a protocol
            h11_max_incomplete_event_size=connections.max_header_size,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=LAST_WORDS_SECONDS,
            timeout_keep_alive=connections.keep_alive,  # type: ignore[arg-type]  # a delay, for which a float works too
        )
    )
    answering = asyncio.create_task(server.serve([listener]))
    try:
        backend = await _unless_stopped(loading, stop)
        if backend is not None:
            await backend.start()
            if experiments is not None:
                await anyio.to_thread.run_sync(experiments.open, backend.model.name)
            service.open(backend)
            ready(backend)
            watching = asyncio.create_task(watch_profiles(backend.profiles, profiles_poll, reload or asyncio.Event()))
            await stop.wait()
            watching.cancel()
            service.drain()
            await _finish(service, grace)
            await backend.close()  # ends requests that still run with an error
    finally:
        server.should_exit = True
        await answering
        if experiments is not None:
            await anyio.to_thread.run_sync(experiments.close)
        await service.observability.close()


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
