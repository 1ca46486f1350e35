"""Connections that a slow client cannot hold: limits on their number, on headers that come slowly, and on answers that
are not read.

uvicorn limits none of these. Its protocol for h11 is extended here: h11 needs no compiled package, and the time that
a request takes is the model's.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from steering_server.api.schemas.responses import ErrorBody, ErrorResponse
from steering_server.limits import ConnectionLimits

_REFUSED_SECONDS = 1
"""Seconds for a refused client to read why."""


class LimitedConnection(H11Protocol):
    """One connection."""

    def __init__(self, *args: Any, limits: ConnectionLimits, **kwargs: Any) -> None:
        """Hold the connection to ``limits``; the other arguments are uvicorn's."""
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._waiting_since = 0.0
        self._is_refused = False
        self._headers_timer = _Timer(self.loop)
        self._unread_timer = _Timer(self.loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a new connection, or refuse it if there are too many that work."""
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        if len(self.connections) > self._limits.max_connections and not self._close_longest_waiting():
            self.connections.discard(self)
            self._is_refused = True
            self._send_error(503, "there are too many connections; try again later", "too_many_connections")
            self._unread_timer.start(_REFUSED_SECONDS, transport.abort)
            return
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        """Handle received bytes."""
        if self._is_refused or self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_headers()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._waiting_since = self.loop.time()
        if self.transport.is_closing():
            self._watch_reading()  # it stays open until the client has read everything
        else:
            self._watch_headers()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._watch_reading()

    def pause_writing(self) -> None:
        """Stop writing until the client has read more."""
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._unread_timer.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._headers_timer.stop()
        super().connection_lost(exc)
        self._unread_timer.stop()  # last, since uvicorn resumes writing

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, or one whose headers are larger than h11 was told to allow."""
        fault = sys.exception()
        status = fault.error_status_hint if isinstance(fault, h11.RemoteProtocolError) else 400
        too_large = status == 431
        code = "headers_too_large" if too_large else "invalid_http"
        self._send_error(
            status, "the request's headers are too large" if too_large else "this is no HTTP request", code
        )
        self._watch_reading()

    def _watch_headers(self) -> None:
        """Start the timer of headers if some are awaited, and stop it if not.

        They are awaited on a new connection, and later from the first byte of the next request on.
        """
        awaited = self._is_idle and (self.cycle is None or bool(self.conn.trailing_data[0]))
        if not awaited or self.transport.is_closing():
            self._headers_timer.stop()
        else:
            self._headers_timer.start(self._limits.header_timeout, self._headers_late)

    def _headers_late(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            seconds = f"{self._limits.header_timeout:g}"
            self._send_error(408, f"the headers were not received within {seconds} s", "headers_too_slow")
        else:
            self.transport.close()
        self._watch_reading()

    @property
    def _is_idle(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _close_longest_waiting(self) -> bool:
        """Close the connection that has waited longest for a request; return whether there was one."""
        waiting = [one for one in self.connections if isinstance(one, LimitedConnection) and one._is_idle]
        waiting = [one for one in waiting if one is not self]
        if not waiting:
            return False
        longest = min(waiting, key=lambda one: one._waiting_since)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    def _watch_reading(self) -> None:
        """Close the connection at once if the client does not go on reading."""
        unread = self.transport.get_write_buffer_size()
        self._unread_timer.start(self._limits.client_timeout, partial(self._reading_late, unread))

    def _reading_late(self, unread_before: int) -> None:
        if self.transport.get_write_buffer_size() < unread_before:
            self._watch_reading()
        else:
            self.transport.abort()

    def _send_error(self, status: int, message: str, code: str) -> None:
        """Answer before there is a request, and close."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer is under way
            return
        kind = "service_unavailable_error" if status == 503 else "invalid_request_error"
        error = ErrorResponse(error=ErrorBody(message=message, type=kind, param=None, code=code))
        content = json.dumps(error.model_dump()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        for event in (
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        if not self._is_refused:
            self.transport.close()


class _Timer:
    """Calls a function once, later."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, call: Callable[[], None]) -> None:
        """Call ``call`` after ``seconds``, unless the timer runs already."""
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, self._elapsed, call)

    def stop(self) -> None:
        """Call nothing."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _elapsed(self, call: Callable[[], None]) -> None:
        self._handle = None
        call()
