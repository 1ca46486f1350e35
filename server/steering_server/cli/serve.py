"""``steer serve``: load the model, check the profiles, serve."""

import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings

if TYPE_CHECKING:
    from steering_server.backends.local import LocalBackend
    from steering_server.config import ServerSettings


def serve(
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on. (default: 8000)")] = None,
    profiles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of your own profiles, besides the shipped ones.")
    ] = None,
    force_profiles: Annotated[
        bool | None, typer.Option("--force-profiles", help="Apply profiles made for another model where they can be.")
    ] = None,
    served_name: Annotated[
        str | None, typer.Option(help="The model's name in requests. (default: the model's own)")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Sequences that run at once. (default: 64)")] = None,
    max_queue: Annotated[int | None, typer.Option(min=0, help="Sequences that may wait. (default: 256)")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and completion together. (default: the model's own)")
    ] = None,
    kv_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for keys and values, such as 4GiB. (default: 1GiB, or one full sequence if more)",
        ),
    ] = None,
    step_tokens: Annotated[
        int | None, typer.Option(min=1, help="Prompt tokens computed in one step. (default: 512)")
    ] = None,
    step_tokens_beside: Annotated[
        int | None,
        typer.Option(
            min=1, help="The same while others wait for their next token; fewer make them wait less. (default: 128)"
        ),
    ] = None,
    prefix_cache: Annotated[
        bool | None,
        typer.Option(
            "--prefix-cache/--no-prefix-cache",
            help="Whether prompts that begin alike share the work. (default: they do)",
        ),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. (default: info)")] = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Serve a model, steered and unsteered, over an OpenAI-like HTTP API.

    Without a model it serves the embedded default and its shipped profiles.
    Every option can be given as an environment variable: STEER_PORT=8123 is
    --port 8123.
    """
    from steering_server.cli.opening import open_backend
    from steering_server.config import load_settings
    from steering_server.logs import configure_logs

    options = {
        "host": host,
        "port": port,
        "profiles": profiles,
        "force_profiles": force_profiles,
        "served_name": served_name,
        "max_batch": max_batch,
        "max_queue": max_queue,
        "max_model_len": max_model_len,
        "kv_memory": kv_memory,
        "step_tokens": step_tokens,
        "step_tokens_beside": step_tokens_beside,
        "prefix_cache": prefix_cache,
        "log_level": log_level,
    }
    given = {name: value for name, value in options.items() if value is not None}
    # uvicorn finishes what runs and then raises the signal again; that is an orderly end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = load_settings(**given, **model_settings(model, dtype, device_map, max_memory, cache_dir))
    configure_logs(settings.log_level)
    listener = _listen(settings)
    console = Console(stderr=True, highlight=False)
    with console.status("loading the model"):
        backend = open_backend(settings)
    _greet(console, backend, listener)
    _run(backend, settings, listener)


def _listen(settings: "ServerSettings") -> socket.socket:
    """Take the port before the model is loaded, so that one in use is known at once."""
    from steering_server.errors import ConfigError

    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        # asyncio turns off Nagle's delays of 40 ms only for sockets that say they are TCP
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as exc:
        raise ConfigError(f"cannot listen on {settings.host} port {settings.port}: {exc.strerror}") from exc
    return listener


def _greet(console: Console, backend: "LocalBackend", listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    usable = [name for name, card in backend.profiles.items() if card.usable]
    console.print(f"[bold]{escape(backend.model.name)}[/] ({backend.model.dtype}) on http://{host}:{port}")
    console.print(f"profiles: {escape(', '.join(usable)) or 'none for this model'}")
    for name, card in backend.profiles.items():
        if card.forced:
            console.print(f"[yellow]forced:[/] {escape(name)} was made for another model: {escape(card.reason or '')}")


def _run(backend: "LocalBackend", settings: "ServerSettings", listener: socket.socket) -> None:
    import uvicorn

    from steering_server.api.app import create_app

    app = create_app(backend)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[listener])
