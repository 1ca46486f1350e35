"""Authentication: who sends a request, and whether they may make one more."""

import math
from collections.abc import Container

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from steering_server.access.gate import Gate
from steering_server.access.quotas import Meter
from steering_server.api.errors import error_response
from steering_server.api.middleware.refusing import refuse
from steering_server.errors import RateLimited, RequestError


class Authentication:
    """Puts the caller of every request into its state, and refuses requests without one.

    It counts the requests of every key, and tells what is left of its limits as OpenAI does. It knows nothing of
    routes, so a path that leads nowhere is refused like any other.
    """

    def __init__(self, app: ASGIApp, gate: Gate, open_paths: Container[str]) -> None:
        """Ask ``gate`` for the caller of every request, except those to ``open_paths``."""
        self._app = app
        self._gate = gate
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = self._gate.anybody
        if scope["path"] not in self._open_paths:
            try:
                caller = self._gate.admit(Headers(scope=scope).getlist("authorization"))
            except RequestError as exc:
                await refuse(error_response(exc), scope, receive, send)
                return
        bind_contextvars(client=caller.client)
        scope.setdefault("state", {})["caller"] = caller
        if caller.meter is None:
            await self._app(scope, receive, send)
        else:
            await self._counted(caller.meter, scope, receive, send)

    async def _counted(self, meter: Meter, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_allowances(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_allowances(meter))
            await send(message)

        try:
            meter.count_request()
        except RateLimited as exc:
            await refuse(error_response(exc), scope, receive, send_with_allowances)
            return
        await self._app(scope, receive, send_with_allowances)


def _allowances(meter: Meter) -> dict[str, str]:
    """Return OpenAI's headers about the limits of a key."""
    headers = {}
    for what, allowance in meter.allowances.items():
        headers[f"x-ratelimit-limit-{what}"] = str(allowance.limit)
        headers[f"x-ratelimit-remaining-{what}"] = str(allowance.left)
        headers[f"x-ratelimit-reset-{what}"] = f"{math.ceil(allowance.resets_in)}s"
    return headers
