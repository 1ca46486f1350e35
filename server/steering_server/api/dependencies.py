"""Dependencies of routes."""

from typing import Annotated

from fastapi import Depends, Request

from steering_server.access.callers import Caller
from steering_server.api.schemas.strict import field_policy
from steering_server.api.service import Service
from steering_server.limits import RequestLimits


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def apply_field_policy(request: Request) -> None:
    """Read the body of this request by the application's field policy."""
    field_policy.set(request.app.state.field_policy)


ServiceDep = Annotated[Service, Depends(_service)]
"""Parameter type by which a route gets the service."""


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
"""Parameter type by which a route gets who sends the request."""


def _admin(caller: CallerDep) -> Caller:
    caller.require_admin()
    return caller


AdminDep = Annotated[Caller, Depends(_admin)]
"""The same for a route that changes the server. It answers 403 to callers without the role admin; on a server without
API keys that listens on a loopback address only, every caller is an admin."""


def _limits(request: Request) -> RequestLimits:
    limits: RequestLimits = request.app.state.limits
    return limits


LimitsDep = Annotated[RequestLimits, Depends(_limits)]
"""Parameter type by which a route gets the limits of a request."""
