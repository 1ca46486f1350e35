"""Refusal of a request before its body has been read."""

import anyio
from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

_DRAINED_BYTES = 64 * 2**20
_DRAINING_SECONDS = 10


async def refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send ``response`` at once, then read and drop the rest of the body, up to a point, and close the connection.

    A client that is still sending when its connection is closed does not see the answer.
    """
    if not _has_body(Headers(scope=scope)):
        await response(scope, receive, send)
        return
    response.headers["connection"] = "close"

    async def send_unfinished(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await response(scope, receive, send_unfinished)
    with anyio.move_on_after(_DRAINING_SECONDS):
        await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _drain(receive: Receive) -> None:
    dropped, more = 0, True
    while more and dropped <= _DRAINED_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        more = message.get("more_body", False)
