"""``steer serve``: load the model, check the profiles, serve."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model

if TYPE_CHECKING:
    from steering_server.backends.local import LocalBackend
    from steering_server.config import ServerSettings


def serve(
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on. [default: 8000]")] = None,
    profiles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of your own profiles, besides the shipped ones.")
    ] = None,
    force_profiles: Annotated[
        bool | None, typer.Option("--force-profiles", help="Apply profiles made for another model where they can be.")
    ] = None,
    served_name: Annotated[
        str | None, typer.Option(help="The model's name in requests. [default: the model's own]")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Sequences that run at once. [default: 32]")] = None,
    max_queue: Annotated[int | None, typer.Option(min=0, help="Sequences that may wait. [default: 256]")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and completion together. [default: the model's own]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Serve a model, steered and unsteered, over an OpenAI-like HTTP API.

    Without a model it serves the embedded default and the profiles shipped for it. Every option can be given as an
    environment variable: STEER_PORT=8123 is --port 8123.
    """
    from steering_server.config import load_settings

    given = {name: value for name, value in locals().items() if value is not None and name != "load_settings"}
    settings = load_settings(**given)
    listener = _listen(settings)
    console = Console(stderr=True, highlight=False)
    with console.status("loading the model"):
        backend = open_backend(settings)
    _greet(console, backend, listener)
    _run(backend, settings, listener)


def open_backend(settings: "ServerSettings") -> "LocalBackend":
    """Load the model and the profiles that ``settings`` name and put the engine on them."""
    from steering_profiles.models import load_model
    from steering_profiles.store import Catalogue
    from steering_server.backends.local import LocalBackend
    from steering_server.engine.engine import EngineLimits

    catalogue = Catalogue.open(settings.profiles)  # first: it is read in no time, the model is not
    return LocalBackend(
        load_model(settings.model_source),
        catalogue,
        EngineLimits(max_batch=settings.max_batch, max_queue=settings.max_queue, max_length=settings.max_model_len),
        served_name=settings.served_name,
        force_profiles=settings.force_profiles,
    )


def _listen(settings: "ServerSettings") -> socket.socket:
    """Take the port before the model is loaded, so that one in use is known at once."""
    from steering_server.errors import ConfigError

    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
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
