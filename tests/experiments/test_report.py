"""Reports compare arms by units, at any time, from any replica."""

import random

import pytest

from steering_server.experiments.aggregates import Cell
from steering_server.experiments.definition import ArmDefinition, Guardrail, Outcome
from steering_server.experiments.live import Experiments
from steering_server.experiments.outcomes import Given
from steering_server.experiments.report import Report
from tests.experiments.building import HALVES, assign, begin, definition, expose, exposure, until
from tests.experiments.conftest import Replica


def run(
    experiments: Experiments, name: str, rates: dict[str, float], units: int, *, prefix: str = "user", seed: int = 0
) -> None:
    """Expose units and report whether they succeeded, which depends on their arm."""
    draws = random.Random(seed)
    given = [expose(experiments, name, f"{prefix}-{i}") for i in range(units)]
    experiments.add_outcomes(name, [Given(one.exposure, float(draws.random() < rates[one.arm])) for one in given])


def test_a_difference_is_found_and_none_where_there_is_none(experiments: Experiments):
    name = begin(experiments, outcome=Outcome("solved", expected=0.5), minimum_effect=0.1)
    run(experiments, name, {"control": 0.4, "treatment": 0.75}, 600)
    (comparison,) = experiments.report(name).comparisons
    assert comparison.verdict == "better"
    assert comparison.interval is not None
    assert comparison.difference is not None
    assert 0 < comparison.interval[0] < comparison.difference < comparison.interval[1]
    assert (comparison.treatment, comparison.control, comparison.units) == ("treatment", "control", 600)
    assert comparison.units_missing == comparison.units_needed - 600
    begin(experiments, name="same", requests="named")
    run(experiments, "same", dict.fromkeys(HALVES, 0.5), 600)
    assert experiments.report("same").comparisons[0].verdict == "undecided"


def test_a_lower_outcome_can_be_the_better_one(experiments: Experiments):
    name = begin(experiments, outcome=Outcome("complained", higher_is_better=False))
    run(experiments, name, {"control": 0.7, "treatment": 0.2}, 300)
    assert experiments.report(name).comparisons[0].verdict == "better"


def test_an_experiment_that_nobody_took_part_in_has_a_report(experiments: Experiments):
    experiments.create(definition(guardrails=(Guardrail("latency", 1), Guardrail("errors", 0.01))), HALVES, None)
    report = experiments.report("greeting")
    assert [(arm.exposures, arm.units, arm.mean, arm.interval) for arm in report.arms] == [(0, 0, None, (0, 1))] * 2
    assert (report.comparisons[0].difference, report.comparisons[0].interval) == (None, None)
    assert [guardrail.status for guardrail in report.guardrails] == ["undecided"] * 2
    assert not report.sample_ratio.is_mismatch
    assert report.comparisons[0].units_needed == report.planned_units > 1000


def test_two_replicas_give_one_report(replica: Replica):
    one, other = replica(), replica()
    name = begin(one)
    until(lambda: other.named(name) is not None)
    for experiments, prefix in ((one, "a"), (other, "b")):
        run(experiments, name, {"control": 0.5, "treatment": 0.6}, 200, prefix=prefix)
    one.recorder.flush(30), other.recorder.flush(30)

    def figures(report: Report) -> object:
        return report.arms, report.comparisons, report.sample_ratio

    first, second = one.report(name), other.report(name)
    assert figures(first) == figures(second)
    assert sum(arm.exposures for arm in first.arms) == sum(arm.outcomes for arm in first.arms) == 400


def test_replicas_assign_a_unit_alike(replica: Replica):
    one, other = replica(), replica()
    name = begin(one)
    until(lambda: other.named(name) is not None)
    for i in range(100):
        assert assign(one, name, f"user-{i}").arm == assign(other, name, f"user-{i}").arm


def test_a_change_of_weights_reaches_another_replica(replica: Replica):
    one, other = replica(), replica()
    name = begin(one)
    one.set_weights(name, {"control": 0, "treatment": 1}, None)
    assert {assign(one, name, f"user-{i}").arm for i in range(50)} == {"treatment"}
    until(lambda: (running := other.named(name)) is not None and running.experiment.period == 2)
    assert {assign(other, name, f"user-{i}").arm for i in range(50)} == {"treatment"}
    one.set_state(name, "stop", None)
    assert one.named(name) is None
    until(lambda: other.named(name) is None)
    assert other.everywhere is None


def test_the_many_outcomes_of_a_unit_count_as_those_of_one_unit(experiments: Experiments):
    # Were the turns of a unit independent, this would be significant.
    name, outcomes = begin(experiments), []
    for unit in range(24):
        for turn in range(40):
            given = expose(experiments, name, f"user-{unit}")
            value = float(unit % 3 == 0) if given.arm == "control" else float(unit % 3 != 0)
            outcomes.append(Given(given.exposure, value, key=f"{unit}-{turn}"))
    experiments.add_outcomes(name, outcomes)
    report = experiments.report(name)
    assert sum(arm.exposures for arm in report.arms) == 960
    assert sum(arm.units for arm in report.arms) == 24
    assert report.comparisons[0].units == 24
    assert report.comparisons[0].verdict == "undecided"


def test_the_variance_of_a_ratio_is_that_of_its_units():
    one_each = Cell(units=4, observations=4, total=2, squares=2, products=2, squared_numbers=4)
    assert (one_each.sample.mean, one_each.sample.variance) == (0.5, 0.25)
    alike = Cell(units=4, observations=40, total=20, squares=200, products=200, squared_numbers=400)
    assert (alike.sample.mean, alike.sample.variance) == (0.5, 0.25)


def test_the_sums_of_the_database_are_those_of_the_outcomes(experiments: Experiments):
    name = begin(experiments, outcome=Outcome("stars", "mean", 1, 5))
    given = [expose(experiments, name, f"user-{i % 7}", latency=i / 10) for i in range(30)]
    values = [1 + (i * 7 % 40) / 10 for i in range(30)]
    experiments.add_outcomes(name, [Given(one.exposure, value) for one, value in zip(given, values, strict=True)])
    for arm in experiments.report(name).arms:
        own = [(value, i / 10) for i, (one, value) in enumerate(zip(given, values, strict=True)) if one.arm == arm.name]
        assert arm.outcomes == arm.exposures == len(own)
        assert arm.mean == pytest.approx(sum(value for value, _ in own) / len(own))
        assert arm.builtin["latency"] == pytest.approx(sum(seconds for _, seconds in own) / len(own))


def test_guardrails_say_whether_they_are_kept(experiments: Experiments):
    guardrails = (
        Guardrail("latency", max_relative_increase=0.2),
        Guardrail("completion_tokens", max_increase=10),
        Guardrail("errors", max_increase=0.05),
        Guardrail("regrets", 0.5, None, 0, 3),
    )
    name, draws = begin(experiments, guardrails=guardrails), random.Random(0)
    for i in range(600):
        given = assign(experiments, name, f"user-{i}")
        treated = given.arm == "treatment"
        failed = treated and i % 4 == 0
        experiments.recorder.record(
            exposure(
                given,
                latency=draws.gauss(1.5 if treated else 1.0, 0.1),
                completion_tokens=round(draws.gauss(50, 5)),
                finish_reason="error" if failed else "stop",
            )
        )
    report = experiments.report(name)
    statuses = {guardrail.metric: guardrail.status for guardrail in report.guardrails}
    assert statuses == {
        "latency": "violated", "completion_tokens": "kept", "errors": "violated", "regrets": "undecided",
    }  # fmt: skip
    treatment = report.arms[1]
    assert treatment.builtin["errors"] == pytest.approx(0.25, abs=0.05)
    assert treatment.builtin["latency"] == pytest.approx(1.5, abs=0.05)


def test_answers_whose_client_left_are_neither_errors_nor_fast(experiments: Experiments):
    name = begin(experiments)
    for i in range(20):
        expose(
            experiments, name, f"user-{i}", finish_reason="abort" if i % 2 else "stop", latency=0.1 if i % 2 else 1.0
        )
    for arm in experiments.report(name).arms:
        assert (arm.builtin["errors"], arm.builtin["latency"]) == (0, 1)


def test_units_that_are_missing_from_an_arm_are_a_mismatch(experiments: Experiments):
    name = begin(experiments)
    for i in range(900):
        given = assign(experiments, name, f"user-{i}")
        if given.arm == "control" or i % 2:
            experiments.recorder.record(exposure(given))
    ratio = experiments.report(name).sample_ratio
    assert ratio.is_mismatch
    assert ratio.observed["control"] > ratio.expected["control"]


def test_a_change_of_weights_is_no_mismatch_and_makes_no_difference(experiments: Experiments):
    name = begin(experiments)
    run(experiments, name, dict.fromkeys(HALVES, 0.9), 500, prefix="early")
    experiments.set_weights(name, {"control": 0.1, "treatment": 0.9}, None)
    run(experiments, name, dict.fromkeys(HALVES, 0.2), 500, prefix="late")
    report = experiments.report(name)
    assert not report.sample_ratio.is_mismatch
    assert report.arms[0].mean is not None
    assert report.arms[1].mean is not None
    assert report.arms[0].mean - report.arms[1].mean > 0.2, "what pooling would show"
    assert report.comparisons[0].verdict == "undecided"
    assert report.comparisons[0].difference == pytest.approx(0, abs=0.1)


def test_several_treatments_share_the_level(experiments: Experiments):
    arms = tuple(ArmDefinition(name, "baseline") for name in ("control", "one", "two"))
    experiments.create(definition(arms=arms), {"control": 0.4, "one": 0.3, "two": 0.3}, None)
    experiments.set_state("greeting", "start", None)
    run(experiments, "greeting", {"control": 0.5, "one": 0.5, "two": 0.9}, 500)
    report = experiments.report("greeting")
    assert [one.verdict for one in report.comparisons] == ["undecided", "better"]
    assert report.experiment.definition.alpha_of_one == 0.025
