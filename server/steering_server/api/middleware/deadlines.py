"""A deadline for every request."""

import math

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steering_server.api.deadline import Deadline
from steering_server.api.errors import error_response
from steering_server.api.middleware.refusing import refuse


class Deadlines:
    """Puts a :class:`Deadline` into the state of every request, and answers 408 where none has begun by then.

    An answer that has begun is ended by what sends it: its status is out.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        """Allow every request ``seconds``."""
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = Deadline.after(self._seconds)
        scope.setdefault("state", {})["deadline"] = deadline
        with anyio.CancelScope(deadline=deadline.at) as answering:

            async def send_in_time(message: Message) -> None:
                answering.deadline = math.inf
                await send(message)

            await self._app(scope, receive, send_in_time)
        if answering.cancelled_caught:
            await refuse(error_response(deadline.exceeded), scope, receive, send)
