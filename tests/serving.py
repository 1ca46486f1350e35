"""A real server on a loopback port, in a thread of the test's own process."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, save_profile
from steering_server.api.app import create_app
from steering_server.backends.local import LocalBackend
from steering_server.engine.engine import EngineLimits


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
    catalogue = Catalogue.open(folder, shipped=shipped)
    backend = LocalBackend(loaded, catalogue, limits or EngineLimits(), force_profiles=force)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(backend), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
