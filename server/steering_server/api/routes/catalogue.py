"""``/v1/models``, and ``GET`` of ``/v1/profiles``."""

from functools import partial
from pathlib import Path
from typing import Any

import anyio
from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from steering_profiles.schema import BASELINE
from steering_server.access.callers import Caller
from steering_server.api.arms import resolve_model
from steering_server.api.dependencies import CallerDep, ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.profile_objects import etag, profile_object, steered_name
from steering_server.api.schemas.profile_answers import ProfileDetail, ProfileFileFault, ProfileList
from steering_server.api.schemas.responses import ModelList, ModelObject
from steering_server.errors import NotFound
from steering_server.generation.backend import Backend
from steering_server.generation.profiles import ProfileCard
from steering_server.generation.registry import unknown_profile

router = APIRouter()
# A report is a file of the operator's folder. Its styles are in it; it may do nothing with this server.
_REPORT_HEADERS = {
    "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_LOADING: dict[int | str, dict[str, Any]] = {503: ERROR_RESPONSES[503]}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {status: ERROR_RESPONSES[status] for status in (403, 404, "4XX")}


@router.get("/v1/models", responses=_LOADING)
async def list_models(service: ServiceDep, caller: CallerDep) -> ModelList:
    """List the served name and the model steered by each profile; `baseline` too if a default profile is applied.

    A key that may use some profiles only is told of these.
    """
    backend = service.backend
    served, profiles = backend.model.name, backend.profiles.snapshot
    models = []
    if all(map(caller.may_use, profiles.default.names)):
        models.append(_model(backend, served, str(profiles.default)))
    steered = [name for name, card in profiles.items() if card.available and caller.may_use(name)]
    if profiles.default.names:
        steered.insert(0, BASELINE)
    return ModelList(data=[*models, *(_model(backend, steered_name(served, name), name) for name in steered)])


@router.get("/v1/models/{model:path}", responses=_NOT_FOUND | _LOADING)
async def show_model(model: str, service: ServiceDep, caller: CallerDep) -> ModelObject:
    """Return the model that requests select by a name: a listed one, or profiles at a strength (`model+a+b@0.5`)."""
    backend = service.backend
    default = backend.profiles.snapshot.default
    if model == backend.model.name and all(map(caller.may_use, default.names)):
        return _model(backend, model, str(default))
    return _model(backend, model, resolve_model(model, backend, caller).label)


@router.get("/v1/profiles", responses=_LOADING)
async def list_profiles(service: ServiceDep, caller: CallerDep) -> ProfileList:
    """List every profile, also those that this model cannot use, and refused files of the operator's folder.

    A key that may use some profiles only is told of these, and of no files.
    """
    backend = service.backend
    profiles = backend.profiles.snapshot
    return ProfileList(
        data=[profile_object(card, backend.model.name) for name, card in profiles.items() if caller.may_see(name)],
        default=str(profiles.default),
        faults=[
            ProfileFileFault(file=each.file, message=each.message, kept=each.kept)
            for each in profiles.faults
            if caller.is_admin or caller.profiles is None
        ],
    )


@router.get("/v1/profiles/{name}", responses=_NOT_FOUND | _LOADING)
async def show_profile(name: str, service: ServiceDep, caller: CallerDep, response: Response) -> ProfileDetail:
    """Return one profile with its whole content. The header `ETag` is its content hash."""
    backend = service.backend
    card = _card(name, backend, caller)
    response.headers["etag"] = etag(card.entry.content_hash)
    summary = profile_object(card, backend.model.name)
    return ProfileDetail(**summary.model_dump(), profile=card.entry.profile.model_dump(mode="json"))


@router.get("/v1/profiles/{name}/report", response_class=HTMLResponse, responses=_NOT_FOUND | _LOADING)
async def show_report(name: str, service: ServiceDep, caller: CallerDep) -> HTMLResponse:
    """Return the report of a profile's fit, the HTML file beside it. Browsers run no script of it."""
    report = _card(name, service.backend, caller).entry.report
    content = None if report is None else await anyio.to_thread.run_sync(partial(_read, report))
    if content is None:
        raise NotFound(f"name: profile {name} has no report", param="name", code="report_not_found")
    return HTMLResponse(content, headers=_REPORT_HEADERS)


def _card(name: str, backend: Backend, caller: Caller) -> ProfileCard:
    """Return a profile that ``caller`` may be told of.

    Raises:
        NotFound: there is no such profile.
        Forbidden: ``caller`` may not use it.
    """
    profiles = backend.profiles.snapshot
    card = profiles.get(name)
    if card is None:
        raise unknown_profile(name, {known: card for known, card in profiles.items() if caller.may_see(known)})
    if not caller.is_admin:
        caller.require_profile(name)
    return card


def _read(report: Path) -> bytes | None:
    try:
        return report.read_bytes()
    except OSError:
        return None  # it has just been deleted, or may not be read


def _model(backend: Backend, name: str, arm: str) -> ModelObject:
    invariance = backend.model.batch_invariance
    return ModelObject(
        id=name,
        created=backend.model.created,
        arm=arm,
        batch_invariant=invariance.holds,
        batch_invariant_reason=invariance.reason,
    )
