"""A limit on the number and the size of headers."""

from starlette.types import ASGIApp, Receive, Scope, Send

from steering_server.api.errors import respond
from steering_server.api.middleware.refusing import refuse
from steering_server.api.schemas.responses import ErrorBody

_PER_HEADER = len(b": \r\n")


class HeaderLimit:
    """Refuses requests with too many headers or too large ones."""

    def __init__(self, app: ASGIApp, max_headers: int, max_size: int) -> None:
        """Allow ``max_headers`` headers, and ``max_size`` bytes of them and of the path."""
        self._app = app
        self._max_headers = max_headers
        self._max_size = max_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        fault = self._fault(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        error = ErrorBody(message=fault, type="invalid_request_error", param=None, code="headers_too_large")
        await refuse(respond(431, error), scope, receive, send)

    def _fault(self, scope: Scope) -> str | None:
        headers = scope["headers"]
        if len(headers) > self._max_headers:
            return f"the request has {len(headers)} headers; at most {self._max_headers} are allowed"
        size = sum(len(name) + len(value) + _PER_HEADER for name, value in headers)
        size += len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size > self._max_size:
            return f"the request's path and headers have {size} bytes; at most {self._max_size} are allowed"
        return None
