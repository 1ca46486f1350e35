"""Changes of ``/v1/profiles`` while the server runs. They need the role admin."""

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from fastapi import APIRouter, Request, Response

from steering_profiles.errors import ProfileMismatch
from steering_server.api.dependencies import AdminDep, ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.preconditions import precondition_of
from steering_server.api.profile_body import PROFILE_BODY, read_profile
from steering_server.api.profile_objects import etag, profile_change
from steering_server.api.schemas.profile_answers import ProfileChange
from steering_server.api.service import Service
from steering_server.errors import Conflict
from steering_server.generation.registry import Change

router = APIRouter(responses=ERROR_RESPONSES)
_CREATED: dict[int | str, dict[str, Any]] = {201: {"model": ProfileChange, "description": "There was none before"}}


@router.put("/v1/profiles/{name}", responses=_CREATED, openapi_extra=PROFILE_BODY)
async def put_profile(
    name: str, admin: AdminDep, request: Request, service: ServiceDep, response: Response
) -> ProfileChange:
    """Add a profile, or replace the one of this name.

    Running requests keep the version that they began with. With an operator's folder the profile is written to it,
    otherwise it is kept in memory.
    """
    return await _put(name, request, service, response, dry_run=False)


@router.post("/v1/profiles/{name}/validate", openapi_extra=PROFILE_BODY)
async def validate_profile(
    name: str, admin: AdminDep, request: Request, service: ServiceDep, response: Response
) -> ProfileChange:
    """Check what a `PUT` of the same body would do, and change nothing."""
    return await _put(name, request, service, response, dry_run=True)


@router.delete("/v1/profiles/{name}")
async def delete_profile(
    name: str, admin: AdminDep, request: Request, service: ServiceDep, response: Response
) -> ProfileChange:
    """Delete one of the operator's own profiles. Shipped ones can only be disabled."""
    return await _changed(service.backend.profiles.delete, name, request, service, response)


@router.post("/v1/profiles/{name}/disable")
async def disable_profile(
    name: str, admin: AdminDep, request: Request, service: ServiceDep, response: Response
) -> ProfileChange:
    """Refuse requests that use this profile, until it is enabled again. Running requests continue."""
    disable = partial(service.backend.profiles.set_enabled, enabled=False)
    return await _changed(disable, name, request, service, response)


@router.post("/v1/profiles/{name}/enable")
async def enable_profile(
    name: str, admin: AdminDep, request: Request, service: ServiceDep, response: Response
) -> ProfileChange:
    """Let requests use this profile again."""
    enable = partial(service.backend.profiles.set_enabled, enabled=True)
    return await _changed(enable, name, request, service, response)


async def _put(name: str, request: Request, service: Service, response: Response, *, dry_run: bool) -> ProfileChange:
    backend = service.backend
    precondition = precondition_of(request.headers)
    profile = await read_profile(request, name)
    try:
        change = await _in_thread(partial(backend.profiles.put, profile, precondition, dry_run=dry_run))
    except ProfileMismatch as exc:
        raise Conflict(str(exc), param="model", code="profile_mismatch") from exc
    if change.before is None and not dry_run:
        response.status_code = 201
    return _answer(name, change, service, response)


async def _changed(
    change: Callable[..., Change], name: str, request: Request, service: Service, response: Response
) -> ProfileChange:
    changed = await _in_thread(partial(change, name, precondition=precondition_of(request.headers)))
    return _answer(name, changed, service, response)


def _answer(name: str, change: Change, service: Service, response: Response) -> ProfileChange:
    if change.after is not None:
        response.headers["etag"] = etag(change.after.entry.content_hash)
    return profile_change(name, change, service.backend.model.name)


async def _in_thread(change: Callable[[], Change]) -> Change:
    """Run a change, which reads and writes files; it is completed even if the client has gone."""
    return await anyio.to_thread.run_sync(change)
