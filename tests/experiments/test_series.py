"""The series of an experiment is what reports said while its outcomes came."""

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from steering_server.experiments.definition import Outcome
from steering_server.experiments.live import Experiments
from steering_server.experiments.outcomes import Given
from steering_server.experiments.report import Report
from steering_server.experiments.series import ArmPoint, Point
from tests.experiments.building import begin, definition, expose

FIRST = 1_800_000_000.0
EACH = 8.0
"""Seconds between two batches of outcomes."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time at which outcomes are stored."""
    clock = SimpleNamespace(now=FIRST)
    monkeypatch.setattr("steering_server.experiments.outcomes.time.time", lambda: clock.now)
    return clock


def figures(seen: Report | Point) -> tuple[Sequence[Any], Sequence[Any]]:
    """What both say, rounded since the sums are made in another order."""

    def rounded(*numbers: float | None) -> list[float | None]:
        return [None if number is None else round(number, 9) for number in numbers]

    arms = [
        (arm.name, arm.units if isinstance(arm, ArmPoint) else arm.units_with_outcome, rounded(arm.mean, *arm.interval))
        for arm in seen.arms
    ]
    return arms, [
        (one.treatment, one.control, rounded(one.difference, *(one.interval or ()))) for one in seen.comparisons
    ]


def test_every_point_is_the_report_of_its_time(experiments: Experiments, clock: SimpleNamespace):
    name = begin(experiments, outcome=Outcome("stars", "mean", 0, 5))
    draws, reports = random.Random(1), []
    for batch in range(9):
        clock.now = FIRST + batch * EACH
        if batch == 4:
            experiments.set_weights(name, {"control": 0.2, "treatment": 0.8}, None)
        given = [expose(experiments, name, f"user-{draws.randrange(60)}") for _ in range(12)]
        experiments.add_outcomes(
            name,
            [
                Given(one.exposure, draws.random() * (3 if one.arm == "control" else 5), key=f"{batch}-{i}")
                for i, one in enumerate(given)
            ],
        )
        reports.append(experiments.report(name))
    series = experiments.series(name, 8)
    assert [point.at for point in series] == [FIRST + EACH * number for number in range(1, 9)]
    # The last point includes the outcomes of its very time.
    assert [figures(point) for point in series] == [figures(report) for report in (*reports[:7], reports[8])]
    assert [point.comparisons[0].difference is None for point in series][::7] == [True, False]
    assert figures(experiments.series(name, 1)[0]) == figures(series[-1])


def test_other_metrics_and_experiments_are_not_counted(experiments: Experiments, clock: SimpleNamespace):
    for name in ("one", "other"):
        begin(experiments, name=name, requests="named")
        given = [expose(experiments, name, f"user-{i}") for i in range(4)]
        experiments.add_outcomes(name, [Given(one.exposure, 1) for one in given])
        clock.now += EACH
    assert sum(arm.units for arm in experiments.series("one", 3)[-1].arms) == 4


def test_outcomes_of_one_moment_are_one_point(experiments: Experiments, clock: SimpleNamespace):
    name = begin(experiments)
    experiments.add_outcomes(name, [Given(expose(experiments, name, "user").exposure, 1)])
    (point,) = experiments.series(name, 60)
    assert (point.at, sum(arm.units for arm in point.arms)) == (FIRST, 1)


def test_without_outcomes_there_is_no_point(experiments: Experiments):
    experiments.create(definition(), {"control": 0.5, "treatment": 0.5}, None)
    assert experiments.series("greeting", 60) == []
