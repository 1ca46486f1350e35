"""``/health`` and ``/ready``: what an orchestrator asks before it restarts a server or sends it requests."""

from typing import Any

from fastapi import APIRouter

from steering_server.api.dependencies import ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.schemas.responses import Health, Readiness

router = APIRouter()
_NOT_READY: dict[int | str, dict[str, Any]] = {503: ERROR_RESPONSES[503]}


@router.get("/health")
async def health() -> Health:
    """Say that the server is alive: it answers, whether or not its model is loaded."""
    return Health()


@router.get("/ready", responses=_NOT_READY)
async def ready(service: ServiceDep) -> Readiness:
    """Say whether requests are served: 503 while the model is being loaded and while the server is stopping."""
    return Readiness(model=service.require_ready().model.name)
