"""Middleware that counts and traces requests."""

import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import get_contextvars

from steering_server.api.disconnect import ClientGone
from steering_server.api.errors import error_code
from steering_server.api.open_paths import METRICS, PROBES
from steering_server.api.schemas.fields import shown
from steering_server.observability.labels import OTHER
from steering_server.observability.observability import Observability

UNOBSERVED = PROBES | {METRICS}
"""Routes that machines ask for every few seconds."""

_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_PATH = 200  # characters
_CLIENT_GONE = 499  # as in nginx


class Observing:
    """Counts every request with its route, status and time, counts errors by their code, and traces requests."""

    def __init__(self, app: ASGIApp, observability: Observability, paths: Iterable[str]) -> None:
        """``paths`` are those of the routes. Others are not told apart, since a client can ask for any."""
        self._app = app
        self._metrics = observability.metrics
        self._tracing = observability.tracing
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in UNOBSERVED:
            await self._app(scope, receive, send)
            return
        answer = _Answer()
        if self._tracing is None:
            await self._serve(answer, scope, receive, send)
            return
        with self._tracing.request(_method(scope), shown(scope["path"], _PATH), Headers(scope=scope)) as span:
            try:
                await self._serve(answer, scope, receive, send)
            finally:
                request_id = get_contextvars().get("request_id", "")
                span.answered(self._handler(scope), answer.status, request_id, error_code(scope, answer.status))

    async def _serve(self, answer: "_Answer", scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except ClientGone:
            answer.status = _CLIENT_GONE
            raise
        finally:
            if self._metrics is not None:
                seconds = time.perf_counter() - began
                self._metrics.request_ended(self._handler(scope), _method(scope), answer.status, seconds)
                code = error_code(scope, answer.status)
                if code is not None:
                    self._metrics.failed(code)

    def _handler(self, scope: Scope) -> str:
        """Return the route of a request, also of one that was refused before it was routed."""
        path = getattr(scope.get("route"), "path", scope["path"])
        return path if path in self._paths else OTHER


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else OTHER


class _Answer:
    status = 500
    """Status of the answer; unexpected errors are answered outside of all middleware."""
