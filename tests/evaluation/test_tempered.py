"""A profile and the unsteered model at their own tuned temperatures: paired changes with intervals over facts."""

import json
import math

import numpy as np
import pytest

from steering_profiles.evaluation import (
    CalibrationComparison,
    ScoredAnswer,
    TokenPredictor,
    tune_and_compare,
    tune_temperature,
)
from steering_profiles.evaluation.calibration import calibrate_groups
from steering_profiles.evaluation.tempered import PairedChange, TemperedChange, compare_tempered, paired_change
from steering_profiles.models import LoadedModel
from steering_profiles.tasks.task import Example
from tests.builders import build_profile, steer
from tests.evaluation.test_calibration import prompts


def asked(*facts: str, group: str = "a") -> list[Example]:
    """Prompts about facts, each named by a letter; the topic is the first token."""
    return [Example(group, "", (ord(fact), 1, 2), 0, topic=(0, 1)) for fact in facts]


def answers(*log_probabilities: float, right: tuple[bool, ...] = ()) -> list[ScoredAnswer]:
    of = right or (False,) * len(log_probabilities)
    return [ScoredAnswer("a", is_right, value, 0.5) for value, is_right in zip(log_probabilities, of, strict=True)]


def test_changes_are_means_over_the_same_prompts():
    found = compare_tempered(
        asked(*"abcd"),
        answers(-2.0, -1.0, -3.0, -1.0, right=(False, True, False, True)),
        answers(-1.0, -1.0, -2.0, -1.5, right=(True, True, True, False)),
        0.9,
    )
    assert found.temperature == 0.9
    assert (found.pooled.prompts, found.pooled.nll_before, found.pooled.nll.mean) == (4, 1.75, -0.375)
    assert (found.pooled.accuracy_before, found.pooled.accuracy.mean) == (0.5, 0.25)
    assert found.groups == {"a": found.pooled}


def test_each_group_is_compared_by_itself():
    examples = [*asked(*"abc"), *asked(*"abc", group="b")]
    found = compare_tempered(examples, answers(*[-1.0] * 6), answers(*[-2.0] * 3, *[-0.5] * 3), 1.0)
    assert {group: one.nll.mean for group, one in found.groups.items()} == {"a": 1.0, "b": -0.5}
    assert found.pooled.nll.mean == 0.25


def test_of_independent_prompts_the_interval_is_that_of_a_mean():
    changes = np.array([0.3, -0.1, 0.5, 0.2, -0.4])
    expected = 1.959964 * changes.std(ddof=1) / math.sqrt(len(changes))
    assert paired_change(changes, range(5)).half == pytest.approx(expected, rel=1e-12)


def test_a_fact_asked_in_many_words_counts_as_one_observation():
    once = np.array([0.3, -0.1, 0.5, 0.2])
    assert paired_change(np.repeat(once, 10), np.repeat(np.arange(4), 10).tolist()).half == pytest.approx(
        paired_change(once, range(4)).half
    )
    independent = paired_change(np.repeat(once, 10), range(40)).half
    assert independent is not None
    assert independent < 0.4 * (paired_change(once, range(4)).half or 0)


def test_one_fact_has_no_interval_and_proves_nothing():
    found = compare_tempered(asked(*"aaa"), answers(*[-1.0] * 3), answers(*[-3.0] * 3), 1.0).pooled
    assert found.nll == PairedChange(2.0, None)
    assert (found.nll.low, found.nll.high, found.is_worse) == (-math.inf, math.inf, False)


@pytest.mark.parametrize(
    ("nll", "accuracy", "worse", "better"),
    [
        (PairedChange(0.2, 0.1), PairedChange(0.0, 0.1), True, False),
        (PairedChange(0.1, 0.2), PairedChange(0.0, 0.1), False, False),
        (PairedChange(-0.2, 0.1), PairedChange(-0.2, 0.1), True, False),
        (PairedChange(-0.2, 0.1), PairedChange(0.0, 0.1), False, False),
        (PairedChange(-0.1, 0.2), PairedChange(0.05, 0.1), False, True),
    ],
)
def test_worse_is_beyond_the_interval_and_better_is_in_both_figures(
    nll: PairedChange, accuracy: PairedChange, worse: bool, better: bool
):
    change = TemperedChange(10, 1.0, nll, 0.5, accuracy)
    assert (change.is_worse, change.is_better) == (worse, better)


def test_both_sides_are_measured_at_the_temperature_tuned_for_them_on_dev_of_the_same_name(tiny: LoadedModel):
    examples = prompts(tiny)
    dev = {"test": examples[:16], "few": examples[8:]}
    steering = steer(build_profile(tiny, self_only_attention=1.0, intercept_scale=20.0))
    with TokenPredictor(tiny) as predictor:
        found = tune_and_compare(predictor, dev, {"test": examples, "few": examples, "more": examples}, steering)
        for name, of in (("test", "test"), ("few", "few"), ("more", "test")):
            plain, _ = tune_temperature(predictor, dev[of])
            steered, _ = tune_temperature(predictor, dev[of], steering=steering)
            both = found[name].both_tempered
            assert both is not None
            assert (found[name].temperature, both.temperature) == (plain, steered)
            before = calibrate_groups(predictor.answers_at(examples, (plain,))[plain]).pooled
            after = calibrate_groups(predictor.answers_at(examples, (steered,), steering)[steered]).pooled
            assert both.pooled.nll_before == pytest.approx(before.nll)
            assert both.pooled.nll.mean == pytest.approx(after.nll - before.nll)
            assert both.pooled.accuracy.mean == pytest.approx(after.accuracy - before.accuracy)
        assert plain != steered
    again = {
        name: CalibrationComparison.from_json(json.loads(json.dumps(one.to_json()))) for name, one in found.items()
    }
    assert again == found
