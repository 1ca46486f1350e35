"""The ingress: takes requests from Ray Serve's proxies and passes on what a replica of the engine answers."""

import asyncio
from typing import Any

import structlog
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steering_server.api.errors import error_response
from steering_server.api.middleware.body_limit import BodyLimit, BodyMemory
from steering_server.api.middleware.deadlines import Deadlines
from steering_server.config import ServerSettings
from steering_server.errors import Conflict, Overloaded, ServerError, Unavailable
from steering_server.logs import configure_logs
from steering_server.ray_serve.answering import Answer
from steering_server.ray_serve.forwarding import Forwarded

ATTEMPTS = 3
_LATER = 5.0  # seconds that a replica has more than its own deadline to say that it has passed
_RETRY_AFTER = 1.0

_log = structlog.get_logger("steering_server.ray_serve")


class Ingress:
    """An ASGI application in front of the engine's replicas."""

    def __init__(self, settings: ServerSettings, engine: Any) -> None:
        """Ask ``engine``, a handle of the deployment of :class:`.Engine`."""
        configure_logs(settings.log_level)
        self._settings = settings
        self._engine = engine

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application; Ray Serve asks for it."""
        limits = self._settings.request_limits
        seconds = self._settings.client_timeout
        limited = BodyLimit(self._forward, limits.max_body_size, BodyMemory(limits.body_memory), seconds)
        return _http_only(Deadlines(limited, limits.request_timeout + _LATER))

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Forwarded.of(scope, (await receive())["body"])
        answer = Answer(send, request.path)
        try:
            if request.toggles_profile:
                await self._tell_all(request, answer)
            elif request.changes_profile:
                await self._change(request, answer)
            else:
                await self._ask(request, answer)
        except ServerError as exc:
            if answer.has_begun:
                await answer.fail(exc)
            else:
                await error_response(exc)(scope, receive, send)

    async def _ask(self, request: Forwarded, answer: Answer) -> None:
        """Pass on what a replica answers; ask another one if it is lost before the answer has begun.

        Raises:
            Overloaded: too many requests wait for a replica.
            Unavailable: the replica was lost, or there is none.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._ask_one(request, answer)
                return
            except _ReplicaLost:
                if answer.has_begun or attempt == ATTEMPTS or not request.may_repeat:
                    raise
                answer.forget()
                _log.warning("replica_lost", path=request.path, attempt=attempt)

    async def _ask_one(self, request: Forwarded, answer: Answer) -> None:
        messages = self._engine.options(stream=True).respond.remote(request)
        try:
            async for batch in messages:
                for message in batch:
                    await answer.send(message)
        except TaskCancelledError as exc:
            raise asyncio.CancelledError from exc  # the client has left
        except (RayError, RayServeException) as exc:
            raise _meaning(exc) from exc
        finally:
            if not answer.has_ended:
                messages.cancel()
        if not answer.has_ended:
            raise _ReplicaLost

    async def _change(self, request: Forwarded, answer: Answer) -> None:
        """Let one replica change the folder of profiles, and all others read it before the answer."""
        if self._settings.profiles is None:
            raise Conflict(
                "profiles cannot be changed: replicas share them in a folder, and this application has none; give it "
                "the setting profiles",
                code="no_shared_folder",
            )
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self._ask(request, Answer(keep, request.path))
        await self._broadcast("reload_profiles")
        for message in kept:
            await answer.send(message)

    async def _tell_all(self, request: Forwarded, answer: Answer) -> None:
        """Let every replica do the same, and pass on the first error, or else the first answer."""
        answers: list[list[Message]] = await self._broadcast("whole", request)
        if not answers:
            raise Unavailable("there is no replica; try again later", code="loading")
        for message in max(answers, key=lambda messages: messages[0]["status"]):
            await answer.send(message)

    async def _broadcast(self, method: str, *arguments: Any) -> list[Any]:
        try:
            results: list[Any] = await self._engine.broadcast(method, *arguments).results_async()
        except RayError as exc:
            raise _meaning(exc) from exc
        return results


class _ReplicaLost(Unavailable):
    """The replica has died, or cannot be reached."""

    def __init__(self) -> None:
        super().__init__(
            "the replica that worked on this request was lost; send the request again", code="replica_lost"
        )


def _meaning(exc: Exception) -> ServerError:
    """Return the error that an exception of Ray means to a client."""
    if isinstance(exc, BackPressureError):
        return Overloaded("the queue is full: all replicas are busy; send the request again", retry_after=_RETRY_AFTER)
    if isinstance(exc, DeploymentUnavailableError):
        return Unavailable("no replica of the engine could be started; see Ray's log", code="no_replica")
    if isinstance(exc, RayTaskError | RayServeException):
        _log.error("replica_failed", exc_info=exc)
        return ServerError("the server failed on this request")
    return _ReplicaLost()


def _http_only(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with answers to what is not HTTP."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
        else:
            await send({"type": "websocket.close", "code": 1000})

    return answering
