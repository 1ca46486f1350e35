"""A real server on a loopback port, in a thread of the test process."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from steering_profiles.labels import parse_label
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, save_profile
from steering_server.api.lifecycle import live
from steering_server.api.settings import ApiSettings
from steering_server.cli.listening import listen
from steering_server.engines.local.backend import LocalBackend
from steering_server.engines.local.ragged import SequenceInput
from steering_server.engines.local.runner import Runner, SequenceOutput
from steering_server.experiments.live import Experiments
from steering_server.generation.backend import Backend
from steering_server.generation.registry import ProfileRegistry
from steering_server.limits import EngineLimits
from steering_server.observability.observability import Observability


def build_backend(
    loaded: LoadedModel,
    catalogue: Catalogue,
    limits: EngineLimits | None = None,
    *,
    force: bool = False,
    folder: Path | None = None,
    default: str | None = None,
    served_name: str | None = None,
) -> LocalBackend:
    """Build a backend of ``loaded`` with the profiles of ``catalogue``, and with those in ``folder``, which change."""
    profiles = ProfileRegistry.open(
        catalogue,
        loaded.identity,
        loaded.anatomy.refuses,
        force=force,
        folder=folder,
        default=None if default is None else parse_label(default),
    )
    return LocalBackend(loaded, profiles, limits or EngineLimits(), served_name=served_name)


@contextmanager
def serving(
    loaded: LoadedModel,
    folder: Path,
    profiles: Sequence[Profile] = (),
    *,
    shipped: bool = False,
    force: bool = False,
    limits: EngineLimits | None = None,
    settings: ApiSettings | None = None,
    observability: Observability | None = None,
    experiments: Experiments | None = None,
    watched: bool = False,
    default: str | None = None,
    served_name: str | None = None,
) -> Iterator[str]:
    """Serve ``loaded`` with ``profiles``, saved to ``folder`` first, and yield the server's URL.

    Only if ``watched`` the server sees later changes of the folder, and writes to it.
    """
    for profile in profiles:
        save_profile(profile, folder)
    catalogue = Catalogue.open(folder, shipped=shipped)
    backend = build_backend(
        loaded,
        catalogue,
        limits,
        force=force,
        folder=folder if watched else None,
        default=default,
        served_name=served_name,
    )
    loading: Future[Backend] = Future()
    loading.set_result(backend)
    with living(
        loading, settings=settings, observability=observability, experiments=experiments, profiles_poll=0.05
    ) as (url, _):
        wait_until_ready(url)
        yield url


def slow_steps(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.005) -> None:
    """Let every step of this process's engines take at least so long, for tests of what happens meanwhile."""
    run = Runner.run

    def slowly(self: Runner, inputs: Sequence[SequenceInput]) -> list[SequenceOutput]:
        time.sleep(seconds)
        return run(self, inputs)

    monkeypatch.setattr(Runner, "run", slowly)


@contextmanager
def living(
    loading: Future[Backend],
    *,
    grace: float = 30,
    settings: ApiSettings | None = None,
    observability: Observability | None = None,
    experiments: Experiments | None = None,
    profiles_poll: float = 1,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Run a server; yield its URL and a function that stops it. Raises the exception that ends the server, if any."""
    listener = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started: Future[Callable[[], None]] = Future()

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)

        started.set_result(tell)
        await live(
            listener,
            loading,
            stop,
            grace=grace,
            ready=lambda backend: None,
            settings=settings,
            observability=observability,
            experiments=experiments,
            profiles_poll=profiles_poll,
        )

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


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Process(Protocol):
    """A process that may have ended."""

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""


def wait_until_ready(url: str, process: Process | None = None, *, seconds: float = 60) -> None:
    """Wait until the server at ``url`` is ready; fail if its ``process`` ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process is None or process.poll() is None, "the server did not start"
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except (httpx.ConnectError, httpx.ReadTimeout):  # it is not there yet, or others have the processor
            pass
        time.sleep(0.02)
    raise AssertionError("the server was not ready in time")
