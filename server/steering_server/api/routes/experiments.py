"""``/v1/experiments``. All but outcomes need the role admin."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, TypeVar

import anyio
from fastapi import APIRouter, Query

from steering_server.access.callers import Caller
from steering_server.api.arms import resolve_arm
from steering_server.api.dependencies import AdminDep, ServiceDep
from steering_server.api.errors import ERROR_RESPONSES
from steering_server.api.experiment_objects import experiment_object, report_object, series_object
from steering_server.api.schemas.experiment_series import ExperimentSeries
from steering_server.api.schemas.experiments import (
    ExperimentBody,
    ExperimentList,
    ExperimentObject,
    ExperimentReport,
    OutcomesBody,
    OutcomesStored,
    WeightsBody,
)
from steering_server.experiments.definition import Definition, State
from steering_server.experiments.live import Experiments
from steering_server.experiments.series import MAX_POINTS
from steering_server.generation.backend import Backend

T = TypeVar("T")

_WAITING = 4
"""Calls of the database at once. They have threads of their own: a database that does not answer must not hold up the
threads that requests need."""


def router_of(experiments: Experiments) -> APIRouter:
    """Return the routes of ``experiments``."""
    router = APIRouter(responses=ERROR_RESPONSES)
    limiter = anyio.CapacityLimiter(_WAITING)

    async def run(work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    async def shown(name: str) -> ExperimentObject:
        found = await run(partial(experiments.find, name))
        return experiment_object(found, await run(partial(experiments.history, found)))

    @router.post("/v1/experiments", status_code=201)
    async def create_experiment(body: ExperimentBody, admin: AdminDep, service: ServiceDep) -> ExperimentObject:
        """Define an experiment. It does not run before it is started."""
        definition = body.definition
        _require_possible(definition, service.backend, admin)
        made = await run(partial(experiments.create, definition, body.weights, admin.client))
        return experiment_object(made)

    @router.get("/v1/experiments")
    async def list_experiments(admin: AdminDep, state: Annotated[State | None, Query()] = None) -> ExperimentList:
        """List all experiments, or those in a state, the newest first."""
        return ExperimentList(data=[experiment_object(one) for one in await run(partial(experiments.all, state))])

    @router.get("/v1/experiments/{name}")
    async def show_experiment(name: str, admin: AdminDep) -> ExperimentObject:
        """Return one experiment with all changes of it."""
        return await shown(name)

    @router.put("/v1/experiments/{name}/weights")
    async def change_weights(name: str, body: WeightsBody, admin: AdminDep) -> ExperimentObject:
        """Change the weights of the arms. As few units as possible move to another arm."""
        await run(partial(experiments.set_weights, name, body.weights, admin.client))
        return await shown(name)

    @router.post("/v1/experiments/{name}/start")
    async def start_experiment(name: str, admin: AdminDep, service: ServiceDep) -> ExperimentObject:
        """Begin to assign requests, or go on after a stop."""
        found = await run(partial(experiments.find, name))
        _require_possible(found.definition, service.backend, admin)
        return await changed(name, "start", admin.client)

    @router.post("/v1/experiments/{name}/stop")
    async def stop_experiment(name: str, admin: AdminDep) -> ExperimentObject:
        """Assign no more requests. Outcomes of earlier exposures are still taken."""
        return await changed(name, "stop", admin.client)

    @router.post("/v1/experiments/{name}/archive")
    async def archive_experiment(name: str, admin: AdminDep) -> ExperimentObject:
        """Close an experiment for good. What is stored stays and can be reported."""
        return await changed(name, "archive", admin.client)

    @router.post("/v1/experiments/{name}/outcomes")
    async def add_outcomes(name: str, body: OutcomesBody) -> OutcomesStored:
        """Store outcomes of exposures, all of them or, after an error, none. They are on the disk when this is
        answered."""
        given = [outcome.given for outcome in body.outcomes]
        stored = await run(partial(experiments.add_outcomes, name, given))
        return OutcomesStored(experiment=name, stored=stored.stored, repeated=stored.repeated)

    @router.get("/v1/experiments/{name}/report")
    async def report_experiment(name: str, admin: AdminDep) -> ExperimentReport:
        """Compare the arms by everything that is stored. It may be looked at at any time: the intervals stay valid."""
        return report_object(await run(partial(experiments.report, name)))

    @router.get("/v1/experiments/{name}/series")
    async def show_series(
        name: str, admin: AdminDep, points: Annotated[int, Query(ge=1, le=MAX_POINTS)] = 60
    ) -> ExperimentSeries:
        """Return the primary outcome over time: what a report would have said at each of so many times."""
        found = await run(partial(experiments.find, name))
        return series_object(found, await run(partial(experiments.series, name, points)))

    async def changed(name: str, action: Literal["start", "stop", "archive"], by: str | None) -> ExperimentObject:
        await run(partial(experiments.set_state, name, action, by))
        return await shown(name)

    return router


def _require_possible(definition: Definition, backend: Backend, caller: Caller) -> None:
    """Check that this server can apply every arm.

    Raises:
        RequestError: it cannot; the message names the arm.
    """
    for index, arm in enumerate(definition.arms):
        resolve_arm(arm.name, arm.steering, backend, caller, f"arms.{index}.steering")
