"""The server's application in this process, asked without a port."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console

from steering_server.api.calling import call, http_scope

if TYPE_CHECKING:
    from starlette.types import Message, Scope

    from steering_client import AsyncSteeringClient
    from steering_server.config import ServerSettings
    from steering_server.generation.backend import Backend


def load_backend(settings: "ServerSettings") -> "Backend":
    """Load the model and the profiles while a spinner is shown.

    Raises:
        SteeringError: the model or a profile cannot be loaded.
        ConfigError: the engine cannot run the model.
    """
    from steering_server.cli.opening import open_backend

    with Console(stderr=True).status("loading the model"):
        return open_backend(settings)


@asynccontextmanager
async def client_in_process(backend: "Backend") -> "AsyncIterator[AsyncSteeringClient]":
    """Start ``backend`` and yield a client of an application that it serves; close it at the end."""
    from steering_client import AsyncSteeringClient
    from steering_server.api.app import create_app
    from steering_server.api.service import Service

    await backend.start()
    try:
        transport = StreamingTransport(create_app(Service(backend)))
        async with AsyncSteeringClient("http://in-process", transport=transport) as client:
            yield client
    finally:
        await backend.close()


class StreamingTransport(httpx.AsyncBaseTransport):
    """Sends requests to an ASGI application. Unlike httpx's own, it passes each part of an answer on as it comes."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Start the application on a request, and return its answer once it has begun."""
        messages = call(self._app, _scope(request), await request.aread())
        start = await anext(messages, None)
        if start is None:
            raise httpx.RemoteProtocolError("the application ended without an answer", request=request)
        return httpx.Response(start["status"], headers=start["headers"], stream=_Body(messages))


class _Body(httpx.AsyncByteStream):
    """The body of an answer. Closing it tells the application that the client has left."""

    def __init__(self, messages: "AsyncGenerator[Message, None]") -> None:
        self._messages = messages

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for message in self._messages:
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        await self._messages.aclose()


def _scope(request: httpx.Request) -> "Scope":
    return http_scope(
        method=request.method,
        scheme=request.url.scheme,
        path=request.url.path,
        raw_path=request.url.raw_path.split(b"?")[0],
        query=request.url.query,
        headers=request.headers.raw,
        server=(request.url.host, request.url.port),
        client=("127.0.0.1", 0),
    )
