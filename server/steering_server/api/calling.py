"""Asking an ASGI application inside this process, without a port."""

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import suppress

from starlette.types import ASGIApp, Message, Scope


async def call(app: ASGIApp, scope: MutableMapping[str, object], body: bytes) -> AsyncGenerator[Message, None]:
    """Run ``app`` on one request and yield the messages that it sends, each as soon as it is sent.

    Closing the generator tells the application that the client has left, and waits for its end.

    Raises:
        Exception: what the application raised.
    """
    parts: asyncio.Queue[Message | None] = asyncio.Queue()
    left = asyncio.Event()
    sent: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if sent:
            return sent.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(scope, receive, parts.put)
        finally:
            parts.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (message := await parts.get()) is not None:
            yield message
        await task
    finally:
        left.set()
        with suppress(Exception):
            await task


def http_scope(
    *,
    method: str,
    scheme: str,
    path: str,
    raw_path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    server: tuple[str, int | None],
    client: tuple[str, int],
) -> Scope:
    """Return the scope of a request; names of ``headers`` are made lower-case."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "headers": [(name.lower(), value) for name, value in headers],
        "scheme": scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "server": server,
        "client": client,
        "root_path": "",
    }
