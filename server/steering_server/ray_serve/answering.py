"""An answer that is passed on from a replica, and how it ends if the replica is lost. No Ray in here."""

import json
import re
from typing import Any

from starlette.types import Message, Send

from steering_server.api.errors import REQUEST_ID, error_body
from steering_server.api.schemas.responses import ErrorResponse
from steering_server.errors import ServerError

_EVENT = re.compile(rb"^event: ", re.MULTILINE)
_NAMES_EVENTS = "/v1/responses"
"""The route whose streams have names and numbers of events."""


class Answer:
    """Passes the messages of an answer on. It begins with its first body; until then another may take its place."""

    def __init__(self, send: Send, path: str) -> None:
        """Pass messages on to ``send``; ``path`` is the request's."""
        self._send = send
        self._path = path
        self._start: Message | None = None
        self._is_stream = False
        self._events = 0
        self.has_begun = False
        """Whether the client has its status."""
        self.has_ended = False

    async def send(self, message: Message) -> None:
        """Pass a message on, or keep it until the first body comes."""
        if message["type"] == "http.response.start":
            # Ray's proxy gives requests their id, and adds it to answers itself.
            headers = [(name, value) for name, value in message["headers"] if name.lower() != REQUEST_ID.encode()]
            self._is_stream = any(value.startswith(b"text/event-stream") for _, value in headers)
            self._start = {**message, "headers": headers}
            return
        if self._start is not None:
            await self._send(self._start)
            self._start, self.has_begun = None, True
        if self._is_stream and self._path == _NAMES_EVENTS:
            self._events += len(_EVENT.findall(message.get("body", b"")))
        self.has_ended = not message.get("more_body", False)
        await self._send(message)

    def forget(self) -> None:
        """Drop what has been kept of an answer that has not begun."""
        assert not self.has_begun
        self._start = None

    async def fail(self, error: ServerError) -> None:
        """End an answer that has begun: a stream by an event, as an engine's error does.

        Raises:
            ServerError: ``error``, if it is no stream; the connection is broken then.
        """
        if not self._is_stream:
            raise error
        await self._send({"type": "http.response.body", "body": self._failure(error), "more_body": False})
        self.has_ended = True

    def _failure(self, error: ServerError) -> bytes:
        _, body = error_body(error)
        if self._path != _NAMES_EVENTS:
            return f"data: {ErrorResponse(error=body).model_dump_json()}\n\n".encode()
        fields: dict[str, Any] = {"code": body.code, "message": body.message, "param": None}
        event = {"type": "error", **fields, "sequence_number": self._events}
        return f"event: error\ndata: {json.dumps(event)}\n\n".encode()
