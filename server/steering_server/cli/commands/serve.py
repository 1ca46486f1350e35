"""``steer serve``: load the model, check the profiles and serve."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from steering_server.cli.listening import listen, url_of
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.limits import RENAMED, EngineLimits

if TYPE_CHECKING:
    from steering_server.config import ServerSettings
    from steering_server.generation.backend import Backend

FORMER_OPTIONS = {f"--{old.replace('_', '-')}": f"--{new.replace('_', '-')}" for old, new in RENAMED.items()}


def serve(
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on. (default: 8000)")] = None,
    profiles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of your own profiles, in addition to the shipped ones.")
    ] = None,
    force_profiles: Annotated[
        bool | None,
        typer.Option(
            "--force-profiles", help="Apply profiles that were made for another model, where the shapes permit."
        ),
    ] = None,
    served_name: Annotated[
        str | None, typer.Option(help="Name of the model in requests. (default: the model's own)")
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Maximum number of sequences that run at the same time. (default: {EngineLimits.max_num_seqs})"
        ),
    ] = None,
    max_queue: Annotated[
        int | None,
        typer.Option(min=0, help=f"Maximum number of sequences that wait to run. (default: {EngineLimits.max_queue})"),
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=2, help="Maximum tokens of prompt and completion together. (default: the model's context length)"
        ),
    ] = None,
    kv_cache_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory of the KV cache, such as 4GiB. (default: 1GiB, or the size of one full sequence if larger)",
        ),
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Maximum prompt tokens computed in one step. (default: {EngineLimits.max_num_batched_tokens})"
        ),
    ] = None,
    max_num_batched_tokens_mixed: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The same limit for steps in which other sequences generate; a smaller one makes them wait less. "
            f"(default: {EngineLimits.max_num_batched_tokens_mixed})",
        ),
    ] = None,
    prefix_cache: Annotated[
        bool | None,
        typer.Option(
            "--prefix-cache/--no-prefix-cache",
            help="Whether sequences with the same prefix share its KV cache. (default: on)",
        ),
    ] = None,
    batch_invariant: Annotated[
        str | None,
        typer.Option(
            metavar="auto|require|off",
            help="Whether answers must not depend on what else runs: where this machine's kernels allow it, or do not "
            "start without it, or off. (default: auto)",
        ),
    ] = None,
    shutdown_grace: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Time for running requests to finish after SIGTERM or SIGINT. (default: 30)"
        ),
    ] = None,
    keep_alive: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time after which an idle connection is closed; must be longer than a proxy in front keeps it. "
            "(default: 75)",
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="Least severe messages to log: debug, info, warning or error. (default: info)")
    ] = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Serve a model, steered and unsteered, over an OpenAI-compatible HTTP API.

    Without --model it serves the embedded default model and its shipped
    profiles. Every option can also be given as an environment variable:
    STEER_PORT=8123 is --port 8123.
    """
    # Until requests can run, SIGTERM exits at once. Imports take seconds, and process 1 of a container has no default
    # handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from steering_server.config import load_settings
    from steering_server.logs import configure_logs

    options = {
        "host": host,
        "port": port,
        "profiles": profiles,
        "force_profiles": force_profiles,
        "served_name": served_name,
        "max_num_seqs": max_num_seqs,
        "max_queue": max_queue,
        "max_model_len": max_model_len,
        "kv_cache_memory": kv_cache_memory,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_num_batched_tokens_mixed": max_num_batched_tokens_mixed,
        "prefix_cache": prefix_cache,
        "batch_invariant": batch_invariant,
        "shutdown_grace": shutdown_grace,
        "keep_alive": keep_alive,
        "log_level": log_level,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = load_settings(**given, **model_settings(model, dtype, device_map, max_memory, cache_dir))
    configure_logs(settings.log_level)
    listener = _listen(settings)

    from steering_server.api.lifecycle import live
    from steering_server.cli.opening import open_backend

    loading: Future[Backend] = Future()
    console = Console(stderr=True, highlight=False)
    with console.status("loading the model") as spinner:

        def ready(backend: "Backend") -> None:
            spinner.stop()
            _greet(console, backend, listener)

        def serving(stop: asyncio.Event) -> Awaitable[None]:
            # Started only once signals are handled: the earlier handler's exit would wait for this thread.
            _fulfil(loading, partial(open_backend, settings))
            grace, keep_alive = settings.shutdown_grace, settings.keep_alive
            return live(listener, loading, stop, grace=grace, ready=ready, keep_alive=keep_alive)

        signalled = asyncio.run(_until_signalled(serving))
    status = 0 if signalled == signal.SIGTERM else 128 + signalled
    if not loading.done():
        os._exit(status)  # sys.exit would wait for the thread that loads the model
    sys.exit(status)


def _listen(settings: "ServerSettings") -> socket.socket:
    """Open the listening socket before the model is loaded, so that a port in use is reported at once."""
    return listen(settings.host, settings.port)


def _greet(console: Console, backend: "Backend", listener: socket.socket) -> None:
    usable = [name for name, card in backend.profiles.items() if card.usable]
    url = escape(url_of(listener))
    console.print(f"[bold]{escape(backend.model.name)}[/] ({backend.model.dtype}) on {url}", soft_wrap=True)
    console.print(f"profiles: {escape(', '.join(usable)) or 'none for this model'}")
    for name, card in backend.profiles.items():
        if card.entry.replaces_shipped:
            console.print(f"{escape(name)}: your profile {escape(str(card.entry.path))} replaces the shipped one")
        if card.forced:
            console.print(f"[yellow]forced:[/] {escape(name)} was made for another model: {escape(card.reason or '')}")


async def _until_signalled(serving: "Callable[[asyncio.Event], Awaitable[None]]") -> int:
    """Serve until SIGTERM or SIGINT; return the signal's number."""
    stop, signalled = asyncio.Event(), list[int]()

    def on_signal(number: int) -> None:
        if signalled:
            os._exit(128 + number)  # a second signal exits at once
        signalled.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await serving(stop)
    return signalled[0]


def _fulfil(loading: "Future[Backend]", load: "Callable[[], Backend]") -> None:
    """Run ``load`` in a thread and set its result in ``loading``."""
    loading.set_running_or_notify_cancel()

    def run() -> None:
        try:
            loading.set_result(load())
        except BaseException as exc:  # handled by the thread that waits for the result
            loading.set_exception(exc)

    threading.Thread(target=run, name="steering-loader", daemon=True).start()
