"""Middleware: request ids and log lines, a limit on the body, refusal of requests while the server is not ready."""

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from steering_server.api.disconnect import ClientGone
from steering_server.api.errors import REQUEST_ID, respond, unavailable
from steering_server.api.schemas.requests import shown
from steering_server.api.schemas.responses import ErrorBody
from steering_server.api.service import Service
from steering_server.errors import Unavailable

MAX_BODY_BYTES = 16 * 2**20
_DRAINED_BYTES = 4 * MAX_BODY_BYTES
_PROBES = ("/health", "/ready")
_LOGGED_PATH = 200  # characters
_GIVEN_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")  # the characters of UUIDs, trace ids and base64

_log = structlog.get_logger("steering_server.api")


class RequestLog:
    """Gives every request an id, in ``x-request-id``, and logs one line when it has been answered.

    A request's own id is kept if there is exactly one and it is safe in headers and logs. While a request is handled,
    all log lines carry its id, and its model and steering once they are known.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began = _request_id(Headers(scope=scope)), time.perf_counter()
        status = 500  # unexpected errors are answered outside of this middleware, see errors
        clear_contextvars()
        bind_contextvars(request_id=request_id, model=None, steering=None)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            status = 499  # as in nginx
        finally:
            log = _log.debug if scope["path"] in _PROBES else _log.info  # probes come every few seconds
            log(
                "request",
                method=scope["method"],
                path=shown(scope["path"], _LOGGED_PATH),
                status=status,
                ms=round(1000 * (time.perf_counter() - began), 1),
            )


def _request_id(headers: Headers) -> str:
    given = set(headers.getlist(REQUEST_ID))
    only = given.pop() if len(given) == 1 else ""
    return only if _GIVEN_ID.fullmatch(only) else uuid.uuid4().hex


class BodyLimit:
    """Refuses bodies larger than ``MAX_BODY_BYTES``, also those sent in chunks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body: list[Message] = []
        size, more = 0, True
        # The rest is read and dropped, up to a point, since a client that is still sending would not see the answer.
        while more and size <= _DRAINED_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size <= MAX_BODY_BYTES:
                body.append(message)
        too_large = size > MAX_BODY_BYTES
        if too_large:
            error = ErrorBody(
                message=f"the body is larger than {MAX_BODY_BYTES >> 20} MiB",
                type="invalid_request_error",
                param=None,
                code="body_too_large",
            )
            await respond(413, error, {"connection": "close"})(scope, receive, send)
            return
        body.reverse()

        async def replay() -> Message:
            return body.pop() if body else await receive()

        await self._app(scope, replay, send)


class Admission:
    """Refuses requests that generate while the service is not ready, and counts them, so that a stop can wait."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            self._service.require_ready()
        except Unavailable as exc:
            await unavailable(exc)(scope, receive, send)
            return
        with self._service.working():
            await self._app(scope, receive, send)
