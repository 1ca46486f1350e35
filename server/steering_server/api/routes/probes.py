"""``/health`` and ``/ready``, the liveness and readiness probes of orchestrators, and ``/version``."""

from typing import Any

from fastapi import APIRouter

from steering_profiles import __version__
from steering_server.api.dependencies import ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.schemas.responses import Health, Readiness, Version

router = APIRouter()
_NOT_READY: dict[int | str, dict[str, Any]] = {503: ERROR_RESPONSES[503]}


@router.get("/health")
async def health() -> Health:
    """Report that the server is alive, whether or not its model is loaded."""
    return Health()


@router.get("/ready", responses=_NOT_READY)
async def ready(service: ServiceDep) -> Readiness:
    """Report whether requests are served: 503 while the model is loading and while the server is stopping."""
    return Readiness(model=service.require_ready().model.name)


@router.get("/version")
async def version() -> Version:
    """Return the version of the server."""
    return Version(version=__version__)
