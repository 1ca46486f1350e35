"""A real server on a loopback port, in a thread of the test process."""

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import httpx

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, save_profile
from steering_server.api.lifecycle import live
from steering_server.engines.local.backend import LocalBackend
from steering_server.generation.backend import Backend
from steering_server.generation.profiles import check_profiles
from steering_server.limits import EngineLimits


def build_backend(
    loaded: LoadedModel, catalogue: Catalogue, limits: EngineLimits | None = None, *, force: bool = False
) -> LocalBackend:
    """Build a backend of ``loaded`` with the profiles of ``catalogue``."""
    profiles = check_profiles(catalogue, loaded.identity, loaded.anatomy.refuses, force=force)
    return LocalBackend(loaded, profiles, limits or EngineLimits())


@contextmanager
def serving(
    loaded: LoadedModel,
    folder: Path,
    profiles: Sequence[Profile] = (),
    *,
    shipped: bool = False,
    force: bool = False,
    limits: EngineLimits | None = None,
) -> Iterator[str]:
    """Serve ``loaded`` with ``profiles``, saved to ``folder`` first, and yield the server's URL."""
    for profile in profiles:
        save_profile(profile, folder)
    backend = build_backend(loaded, Catalogue.open(folder, shipped=shipped), limits, force=force)
    loading: Future[Backend] = Future()
    loading.set_result(backend)
    with living(loading) as (url, _):
        wait_until_ready(url)
        yield url


@contextmanager
def living(
    loading: Future[Backend], *, grace: float = 30, keep_alive: float = 75
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run a server; yield its URL and a function that stops it. Raises the exception that ends the server, if any."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started: Future[Callable[[], None]] = Future()

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)

        started.set_result(tell)
        await live(listener, loading, stop, grace=grace, ready=lambda backend: None, keep_alive=keep_alive)

    ended: Future[None] = Future()

    def until_it_ends() -> None:
        try:
            ended.set_result(asyncio.run(run()))
        except BaseException as exc:
            ended.set_exception(exc)

    threading.Thread(target=until_it_ends, daemon=True).start()
    stop = started.result(timeout=30)
    try:
        yield address, stop
    finally:
        stop()
        ended.result(timeout=60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes] | None = None, *, seconds: float = 60) -> None:
    """Wait until the server at ``url`` is ready; fail if its ``process`` ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process is None or process.poll() is None, "the server did not start"
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.ConnectError:
            pass
        time.sleep(0.02)
    raise AssertionError("the server was not ready in time")
