"""Request ids, and one log line for every request."""

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from steering_server.api.disconnect import ClientGone
from steering_server.api.errors import REQUEST_ID
from steering_server.api.open_paths import PROBES
from steering_server.api.schemas.fields import shown

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
            log = _log.debug if scope["path"] in PROBES else _log.info  # probes come every few seconds
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
