"""Refusal of requests while the server is not ready."""

from starlette.types import ASGIApp, Receive, Scope, Send

from steering_server.api.errors import error_response
from steering_server.api.service import Service
from steering_server.errors import Unavailable


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
            await error_response(exc)(scope, receive, send)
            return
        with self._service.working():
            await self._app(scope, receive, send)
