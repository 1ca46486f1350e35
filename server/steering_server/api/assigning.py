"""The arms of a request: those that it asks for, or the one that an experiment assigns it to."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from fastapi import Request

from steering_server.access.callers import Caller
from steering_server.api.arms import Arm, Arms, resolve_arm, resolve_arms, steering_field
from steering_server.api.deadline import Deadline
from steering_server.api.exposing import Exposing
from steering_server.api.schemas.fields import shown
from steering_server.api.schemas.requests import SamplingBody
from steering_server.api.service import Service
from steering_server.errors import NotFound, RequestError
from steering_server.generation.backend import Backend
from steering_server.generation.registry import Snapshot

if TYPE_CHECKING:
    from steering_server.experiments.live import Experiments, Running

_ANYBODY = Caller(is_admin=True)
"""A caller who may use every profile."""

_log = structlog.get_logger("steering_server.experiments")


def arms_of(request: Request, body: SamplingBody, service: Service, caller: Caller) -> Arms:
    """Return the arms of a request.

    A request that names an experiment gets its arm or an error. One that the experiment has because it says nothing
    about steering is left out of it where it has no unit, where the caller may not use every arm, or where one of the
    arms cannot be applied: then all arms are alike in who is missing.

    Raises:
        NotFound: no such experiment runs.
        RequestError: the request names an experiment and has steering of its own, or has no unit.
        NotFound, Forbidden, RequestError, DefaultUnavailable: see :func:`resolve_arms`.
    """
    experiments, backend = service.experiments, service.backend
    if body.experiment is not None:
        return _named(request, body, body.experiment, experiments, backend, caller)
    running = experiments.everywhere if experiments is not None else None
    if running is None or experiments is None or steering_field(body, backend, caller) is not None:
        return resolve_arms(body, backend, caller)
    unit = _unit(request, body, running)
    if unit is None:
        return _left_out(experiments, "no_unit", body, backend, caller)
    try:
        arms = _resolved(running, backend)
    except RequestError as exc:
        _warn(running, backend, exc)
        return _left_out(experiments, "arm_not_available", body, backend, caller)
    if not all(caller.may_use(one.profile) for arm in arms.values() for one in arm.applied.profiles):
        return _left_out(experiments, "arm_not_allowed", body, backend, caller)
    return _assigned(request, body, running, experiments, arms, unit, backend)


def _named(
    request: Request,
    body: SamplingBody,
    name: str,
    experiments: "Experiments | None",
    backend: Backend,
    caller: Caller,
) -> Arms:
    own = steering_field(body, backend, caller)
    if own is not None:
        raise RequestError(f"experiment: steering is given by {own} already; use one of them", param="experiment")
    running = experiments.named(name) if experiments is not None else None
    if running is None or experiments is None:
        known = ", ".join(experiments.names if experiments is not None else ()) or "none"
        raise NotFound(
            f"experiment: no experiment named {shown(name)} is running; running: {known}",
            param="experiment",
            code="experiment_not_running",
        )
    unit = _unit(request, body, running)
    if unit is None:
        what = running.experiment.definition.unit
        raise RequestError(
            f"experiment: {name} assigns by {what}, which this request does not have, or is empty",
            param=what if what == "user" else "experiment",
        )
    # By this caller, so that an error tells of no profile that they may not use.
    arms = {
        one.name: resolve_arm(one.name, one.steering, backend, caller, "experiment")
        for one in running.experiment.definition.arms
    }
    return _assigned(request, body, running, experiments, arms, unit, backend)


def _assigned(
    request: Request,
    body: SamplingBody,
    running: "Running",
    experiments: "Experiments",
    arms: Mapping[str, Arm],
    unit: str,
    backend: Backend,
) -> Arms:
    assignment = running.assign(unit)
    deadline: Deadline = request.state.deadline
    exposing = Exposing(
        assignment,
        experiments.recorder.record,
        body.whole_prompt if running.experiment.definition.store_text else None,
        # Both clocks are monotonic, but an event loop may have one of its own.
        time.monotonic() + deadline.left,
    )
    return Arms(body.model or backend.model.name, (arms[assignment.arm],), named=False, exposing=exposing)


def _unit(request: Request, body: SamplingBody, running: "Running") -> str | None:
    return running.unit_of(body.user, request.headers, lambda: body.opening)


def _left_out(experiments: "Experiments", reason: str, body: SamplingBody, backend: Backend, caller: Caller) -> Arms:
    experiments.left_out[reason] += 1
    return resolve_arms(body, backend, caller)


@dataclass
class _Resolved:
    """The arms of an experiment, or why there are none, by one snapshot of the profiles."""

    snapshot: Snapshot
    arms: Mapping[str, Arm] | None
    error: RequestError | None
    has_warned: bool = False


def _resolved(running: "Running", backend: Backend) -> Mapping[str, Arm]:
    """Return the arms of an experiment by name. They are resolved again when profiles change."""
    known = _known(running, backend)
    if known.arms is None:
        raise known.error or AssertionError
    return known.arms


def _known(running: "Running", backend: Backend) -> _Resolved:
    snapshot, known = backend.profiles.snapshot, running.resolved
    if isinstance(known, _Resolved) and known.snapshot is snapshot:
        return known
    arms: dict[str, Arm] = {}
    error: RequestError | None = None
    try:
        for one in running.experiment.definition.arms:
            arms[one.name] = resolve_arm(one.name, one.steering, backend, _ANYBODY, "experiment")
    except RequestError as exc:
        error = exc
    known = _Resolved(snapshot, None if error is not None else arms, error)
    running.resolved = known
    return known


def _warn(running: "Running", backend: Backend, error: RequestError) -> None:
    known = _known(running, backend)
    if not known.has_warned:
        known.has_warned = True
        _log.error("experiment_left_out", experiment=running.experiment.name, reason=str(error))
