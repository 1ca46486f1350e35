"""Experiments for tests, and units that take part in them."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from steering_server.experiments.database import Database, parse_database_url
from steering_server.experiments.definition import ArmDefinition, Definition, Outcome
from steering_server.experiments.exposures import Exposure
from steering_server.experiments.live import Assignment, Experiments

MODEL = "tiny-llama"
HALVES = {"control": 0.5, "treatment": 0.5}


def definition(name: str = "greeting", **changes: Any) -> Definition:
    """An experiment with a control and a treatment."""
    arms = (ArmDefinition("control", "baseline"), ArmDefinition("treatment", "heads"))
    return replace(Definition(name, arms, Outcome("solved"), requests="all", salt="salt"), **changes)


def opened(url: str, model: str = MODEL, **options: Any) -> Experiments:
    """The experiments in a database, as a replica has them."""
    experiments = Experiments(Database(parse_database_url(url)), **{"refresh_seconds": 0.05, **options})
    experiments.open(model)
    return experiments


def begin(experiments: Experiments, **changes: Any) -> str:
    """Create and start an experiment; return its name."""
    defined = definition(**changes)
    experiments.create(defined, HALVES, "ops")
    experiments.set_state(defined.name, "start", "ops")
    return defined.name


def until(holds: Callable[[], bool]) -> None:
    """Wait until ``holds``, for half a minute at most."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.01)


def assign(experiments: Experiments, name: str, unit: str) -> Assignment:
    """Assign a unit to an arm of a running experiment."""
    running = experiments.named(name)
    assert running is not None
    return running.assign(unit)


def expose(experiments: Experiments, name: str, unit: str, **changes: Any) -> Assignment:
    """Assign a unit and record the exposure."""
    given = assign(experiments, name, unit)
    experiments.recorder.record(exposure(given, **changes))
    return given


def exposure(given: Assignment, **changes: Any) -> Exposure:
    """The exposure of an assigned request that was answered."""
    made = Exposure(
        id=given.exposure,
        experiment_id=given.experiment.id,
        arm=given.arm_index,
        period=given.experiment.period,
        unit=given.unit,
        at=time.time(),
        latency=0.5,
        time_to_first_token=0.1,
        prompt_tokens=10,
        completion_tokens=20,
        finish_reason="stop",
        profiles=("sha256:0",),
    )
    return replace(made, **changes)
