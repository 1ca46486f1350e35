"""Outcomes are stored once, all of a request or none, and only for real exposures."""

import threading

import pytest

from steering_server.errors import Conflict, RequestError
from steering_server.experiments.definition import Guardrail, Outcome
from steering_server.experiments.exposure_ids import ExposureId, new_exposure_id
from steering_server.experiments.live import Experiments
from steering_server.experiments.outcomes import Given
from tests.experiments.building import assign, begin
from tests.experiments.conftest import Replica


def stored(experiments: Experiments, name: str = "greeting") -> int:
    return sum(arm.outcomes for arm in experiments.report(name).arms)


def test_an_outcome_that_is_sent_again_is_stored_once(experiments: Experiments):
    name = begin(experiments)
    given = [Given(assign(experiments, name, f"user-{i}").exposure, i % 2) for i in range(700)]
    first, again = experiments.add_outcomes(name, given[:600]), experiments.add_outcomes(name, given)
    assert (first.stored, first.repeated) == (600, 0)
    assert (again.stored, again.repeated) == (100, 600)
    assert stored(experiments) == 700


def test_outcomes_with_keys_of_their_own_add_up(experiments: Experiments):
    name = begin(experiments)
    exposure = assign(experiments, name, "someone").exposure
    for key, value in (("turn-1", 1), ("turn-2", 0), ("turn-1", 1)):
        experiments.add_outcomes(name, [Given(exposure, value, key=key)])
    assert stored(experiments) == 2


def test_the_same_key_for_another_outcome_is_a_conflict_and_changes_nothing(experiments: Experiments):
    name = begin(experiments)
    one, other = (assign(experiments, name, unit).exposure for unit in "ab")
    experiments.add_outcomes(name, [Given(one, 1), Given(other, 1, key="k")])
    for conflicting in (Given(one, 0), Given(one, 1, key="k"), Given(other, 0, key="k")):
        fresh = Given(assign(experiments, name, "c").exposure, 1)
        with pytest.raises(Conflict, match=r"outcomes\.1\.key: .* used before, for another outcome"):
            experiments.add_outcomes(name, [fresh, conflicting])
    with pytest.raises(Conflict, match=r"outcomes\.1\.key: .* in this request"):
        experiments.add_outcomes(name, [Given(one, 1, key="new"), Given(one, 0, key="new")])
    assert stored(experiments) == 2


def test_one_bad_outcome_keeps_the_others_of_its_request_out(experiments: Experiments):
    name, metric = begin(experiments, guardrails=(Guardrail("regrets", 1, None, 0, 5),)), "regrets"
    good = [Given(assign(experiments, name, f"u{i}").exposure, 1) for i in range(3)]
    for bad, message in (
        (Given("exp_nothing", 1), r"outcomes\.3\.exposure: is exp_nothing, which is no exposure of the experiment"),
        (Given("exp_\N{SNOWMAN}\n", 1), r"outcomes\.3\.exposure: is 'exp_\\u2603\\n', which"),
        (Given(good[0].exposure, 0.5, key="x"), r"outcomes\.3\.value: is 0\.5; solved is a rate, so it must be 0 or 1"),
        (Given(good[0].exposure, 9, metric), r"outcomes\.3\.value: is 9; regrets must be between 0 and 5"),
        (Given(good[0].exposure, 1, "clicks"), r"outcomes\.3\.metric: is clicks; .* takes outcomes of solved, regrets"),
        (Given(good[0].exposure, 1, "latency"), r"outcomes\.3\.metric: is latency"),
    ):
        with pytest.raises(RequestError, match=message):
            experiments.add_outcomes(name, [*good, bad])
    assert stored(experiments) == 0
    experiments.add_outcomes(name, [*good, Given(good[0].exposure, 5, metric)])
    assert stored(experiments) == 3


def test_an_exposure_of_another_experiment_is_none(experiments: Experiments):
    begin(experiments)
    begin(experiments, name="second", requests="named")
    exposure = assign(experiments, "second", "someone").exposure
    with pytest.raises(RequestError, match="no exposure of the experiment greeting"):
        experiments.add_outcomes("greeting", [Given(exposure, 1)])
    forged = new_exposure_id(ExposureId(0, 1, b"12345678"), bytes(32))
    with pytest.raises(RequestError, match="no exposure of the experiment greeting"):
        experiments.add_outcomes("greeting", [Given(forged, 1)])


def test_outcomes_are_taken_after_a_stop_but_not_by_the_archive(experiments: Experiments):
    name = begin(experiments)
    one, other = (assign(experiments, name, unit).exposure for unit in "ab")
    experiments.set_state(name, "stop", None)
    assert experiments.add_outcomes(name, [Given(one, 1)]).stored == 1
    experiments.set_state(name, "archive", None)
    with pytest.raises(Conflict, match="is archived and takes no outcomes"):
        experiments.add_outcomes(name, [Given(other, 1)])
    assert stored(experiments) == 1


def test_another_replica_takes_an_outcome_before_its_exposure_is_stored(replica: Replica):
    one, other = replica(), replica()
    name = begin(one)
    exposure = assign(one, name, "someone").exposure  # and never recorded
    assert other.add_outcomes(name, [Given(exposure, 1)]).stored == 1
    assert stored(one) == stored(other) == 1


def test_the_same_outcomes_at_two_replicas_at_once_are_stored_once(replica: Replica):
    one, other = replica(), replica()
    name = begin(one)
    given = [Given(assign(one, name, f"user-{i}").exposure, i % 2) for i in range(300)]
    results: list[int] = []

    def send(experiments: Experiments, outcomes: list[Given]) -> None:
        results.extend(experiments.add_outcomes(name, outcomes[i : i + 30]).stored for i in range(0, 300, 30))

    threads = [threading.Thread(target=send, args=pair) for pair in ((one, given), (other, given), (one, given[::-1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(results) == 300
    assert stored(one) == 300


def test_means_are_stored_within_their_bounds(experiments: Experiments):
    name = begin(experiments, outcome=Outcome("stars", "mean", 1, 5))
    exposures = [assign(experiments, name, f"user-{i}").exposure for i in range(4)]
    experiments.add_outcomes(name, [Given(exposure, 1.5 + i) for i, exposure in enumerate(exposures[:3])])
    with pytest.raises(RequestError, match=r"outcomes\.0\.value: is 5\.5; stars must be between 1 and 5"):
        experiments.add_outcomes(name, [Given(exposures[3], 5.5)])
    assert stored(experiments) == 3
