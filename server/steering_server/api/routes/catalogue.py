"""``/v1/models`` and ``/v1/profiles``."""

from typing import Any

from fastapi import APIRouter

from steering_profiles.effective import self_only_attention_range
from steering_profiles.side_effect_warnings import is_measured, side_effect_warnings
from steering_server.api.arms import SEPARATOR
from steering_server.api.dependencies import ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.schemas.requests import shown
from steering_server.api.schemas.responses import (
    ModelList,
    ModelObject,
    ProfileDetail,
    ProfileList,
    ProfileObject,
)
from steering_server.errors import NotFound
from steering_server.generation.backend import Backend
from steering_server.generation.profiles import ProfileCard

router = APIRouter()
_LOADING: dict[int | str, dict[str, Any]] = {503: ERROR_RESPONSES[503]}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {status: ERROR_RESPONSES[status] for status in (404, "4XX")}


@router.get("/v1/models", responses=_LOADING)
async def list_models(service: ServiceDep) -> ModelList:
    """List the baseline and the model steered by each usable profile."""
    return ModelList(data=_models(service.backend))


@router.get("/v1/models/{model:path}", responses=_NOT_FOUND | _LOADING)
async def show_model(model: str, service: ServiceDep) -> ModelObject:
    """Return one of the listed models."""
    for known in _models(service.backend):
        if known.id == model:
            return known
    raise NotFound(f"no model named {shown(model)}", param="model", code="model_not_found")


@router.get("/v1/profiles", responses=_LOADING)
async def list_profiles(service: ServiceDep) -> ProfileList:
    """List every profile of the catalogue, also those that this model cannot use."""
    return ProfileList(data=[_summary(service.backend, card) for card in service.backend.profiles.values()])


@router.get("/v1/profiles/{name}", responses=_NOT_FOUND | _LOADING)
async def show_profile(name: str, service: ServiceDep) -> ProfileDetail:
    """Return one profile with its whole content."""
    card = service.backend.profiles.get(name)
    if card is None:
        known = ", ".join(service.backend.profiles) or "none"
        raise NotFound(f"no profile named {shown(name)}; known: {known}", param="name", code="profile_not_found")
    summary = _summary(service.backend, card)
    return ProfileDetail(**summary.model_dump(), profile=card.entry.profile.model_dump(mode="json"))


def _models(backend: Backend) -> list[ModelObject]:
    served = backend.model
    names = [served.name] + [_steered(backend, name) for name, card in backend.profiles.items() if card.usable]
    invariance = served.batch_invariance
    return [
        ModelObject(
            id=name,
            created=served.created,
            batch_invariant=invariance.holds,
            batch_invariant_reason=invariance.reason,
        )
        for name in names
    ]


def _steered(backend: Backend, profile: str) -> str:
    return f"{backend.model.name}{SEPARATOR}{profile}"


def _summary(backend: Backend, card: ProfileCard) -> ProfileObject:
    profile = card.entry.profile
    return ProfileObject(
        name=profile.name,
        description=profile.description,
        method=profile.method,
        summary=profile.summary,
        content_hash=card.entry.content_hash,
        model=profile.model.id,
        model_name=_steered(backend, profile.name) if card.usable else None,
        shipped=card.entry.shipped,
        usable=card.usable,
        forced=card.forced,
        reason=card.reason,
        own_attention_range=self_only_attention_range(profile),
        side_effects=dict(profile.provenance.side_effects) if profile.provenance and is_measured(profile) else None,
        flags=side_effect_warnings(profile),
    )
