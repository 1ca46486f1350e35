"""What routes need of the application and of the request they serve."""

from typing import Annotated

from fastapi import Depends, Request

from steering_server.api.arms import Arms
from steering_server.api.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
"""Parameter type by which a route gets what the application serves."""


def remember_arms(request: Request, arms: Arms) -> None:
    """Note which model the request names and what it steers with, for its log line."""
    request.scope["model"] = arms.model
    request.scope["steering"] = arms.header
