"""Dependencies of routes."""

from typing import Annotated

from fastapi import Depends, Request

from steering_server.api.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
"""Parameter type by which a route gets the service."""
