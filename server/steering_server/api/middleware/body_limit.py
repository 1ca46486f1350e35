"""Limits on the size of bodies, on the memory of all of them, and on the time that they take."""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steering_server.api.disconnect import ClientGone
from steering_server.api.errors import error_response
from steering_server.api.middleware.refusing import refuse
from steering_server.errors import BodyTooLarge, DeadlineExceeded, Overloaded

_RETRY_SECONDS = 1


class BodyMemory:
    """The memory for the bodies of all requests, counted in the bytes that were received."""

    def __init__(self, size: int) -> None:
        """Allow ``size`` bytes at once."""
        self._size = size
        self._held = 0

    @contextmanager
    def share(self) -> "Iterator[BodyShare]":
        """Yield the share of one request; it is given back at the end."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            share.give_back()

    def take(self, size: int) -> None:
        """Count ``size`` more bytes, or fewer if it is negative.

        Raises:
            Overloaded: there is no room for them; nothing is counted.
        """
        if size > 0 and self._held + size > self._size:
            raise Overloaded(
                f"the bodies of all requests together would exceed {_readable(self._size)}; send the request again",
                retry_after=_RETRY_SECONDS,
                code="body_memory_full",
            )
        self._held += size


class BodyShare:
    """What the body of one request holds of the memory."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._size = 0

    def take(self, size: int) -> None:
        """Hold ``size`` more bytes.

        Raises:
            Overloaded: there is no room for them.
        """
        self._memory.take(size)
        self._size += size

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._memory.take(-self._size)
        self._size = 0


class BodyLimit:
    """Refuses bodies that are too large, also those sent in chunks, those that come too slowly, and those for which
    there is no memory beside the others."""

    def __init__(self, app: ASGIApp, max_size: int, memory: BodyMemory, seconds: float) -> None:
        """Allow ``max_size`` bytes that are received within ``seconds``, as long as ``memory`` has room for them."""
        self._app = app
        self._max_size = max_size
        self._memory = memory
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._memory.share() as share:  # until the answer has ended, since what was read is kept until then
            try:
                bodies = [await self._read(scope, receive, share)]
            except (BodyTooLarge, DeadlineExceeded, Overloaded) as exc:
                share.give_back()
                await refuse(error_response(exc), scope, receive, send)
                return

            async def replay() -> Message:
                return {"type": "http.request", "body": bodies.pop()} if bodies else await receive()

            await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive, share: BodyShare) -> bytes:
        """Return the body. It is joined at once: a client can send one byte in each message."""
        too_large = BodyTooLarge(f"the body is larger than {_readable(self._max_size)}")
        if _announced(Headers(scope=scope)) > self._max_size:
            raise too_large
        body, more = bytearray(), True
        with anyio.move_on_after(self._seconds) as reading:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part: bytes = message.get("body", b"")
                if len(body) + len(part) > self._max_size:
                    raise too_large
                share.take(len(part))
                body += part
                more = message.get("more_body", False)
        if reading.cancelled_caught:
            raise DeadlineExceeded(f"the body was not received within {self._seconds:g} s")
        return bytes(body)


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _readable(size: int) -> str:
    return f"{size >> 20} MiB" if size % 2**20 == 0 else f"{size} bytes"
