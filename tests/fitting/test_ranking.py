"""Reliability as RASteer defines it, against cases small enough to count by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steering_profiles.fitting.ranking import PROMOTION_THRESHOLD, measure_reliability, rank

# One component, four prompts, two groups; prompts 0 and 1 ask for candidate 0, prompts 2 and 3 for candidate 1.
ANSWERS = [0, 0, 1, 1]
LOGITS = torch.tensor([[[4.0, 1.0], [1.0, 4.0], [4.0, 4.0], [1.0, 1.0]]])
MAXIMUM = torch.tensor([[5.0, 5.0, 5.0, 5.0]])


def test_a_component_is_right_when_no_other_candidate_is_above_the_answer():
    measured = measure_reliability(LOGITS, MAXIMUM, ANSWERS)
    assert measured.accuracy.tolist() == [[0.5, 1.0]]


def test_promoting_this_groups_answer_on_another_groups_prompt_is_a_false_positive():
    # Group 0: promoted on prompts 0 (own) and 2 (other): 1 true, 1 false, of 2. Group 1: on 2 (own) and 1 (other).
    measured = measure_reliability(LOGITS, MAXIMUM, ANSWERS)
    assert measured.precision.tolist() == [0.5]
    assert measured.recall.tolist() == [0.5]
    assert measured.f1.tolist() == [0.5]


def test_promotion_is_reaching_half_of_the_largest_logit():
    exactly, below = torch.tensor([[[2.5, 0.0], [0.0, 2.5]]]), torch.tensor([[[2.49, 0.0], [0.0, 2.49]]])
    maximum = torch.tensor([[5.0, 5.0]])
    assert PROMOTION_THRESHOLD == 0.5
    assert measure_reliability(exactly, maximum, [0, 1]).recall.tolist() == [1.0]
    assert measure_reliability(below, maximum, [0, 1]).recall.tolist() == [0.0]


def test_a_component_that_promotes_nothing_scores_zero_and_not_nan():
    measured = measure_reliability(torch.zeros(1, 4, 2), MAXIMUM, ANSWERS)
    assert (measured.precision.item(), measured.recall.item(), measured.f1.item()) == (0.0, 0.0, 0.0)


def test_negatives_are_as_many_as_positives_and_drawn_evenly_from_the_other_groups():
    # 30 prompts per group; the component promotes candidate 0 everywhere: of 30 negatives all are false positives.
    answers = [group for group in range(4) for _ in range(30)]
    logits = torch.zeros(1, 120, 4)
    logits[..., 0] = 1.0
    measured = measure_reliability(logits, torch.ones(1, 120), answers)
    assert measured.precision.item() == pytest.approx(0.5 / 4)


def test_generalising_to_more_groups_comes_before_the_metric():
    accuracy_by_component = {"two groups": (1.0, 1.0), "one group": (1.0, 0.0)}
    logits = torch.zeros(2, 4, 2)
    logits[0, :2, 0] = logits[0, 2:, 1] = 1.0  # orders all candidates right, but promotes none
    logits[1, :, 0] = 9.0  # promotes candidate 0, wherever it is
    measured = measure_reliability(logits, torch.full((2, 4), 10.0), ANSWERS)
    assert [tuple(row) for row in measured.accuracy.tolist()] == list(accuracy_by_component.values())
    assert measured.f1[0] < measured.f1[1]
    assert rank(measured) == [0, 1]


def test_equals_are_ranked_by_index():
    assert rank(measure_reliability(LOGITS.repeat(3, 1, 1), MAXIMUM.repeat(3, 1), ANSWERS)) == [0, 1, 2]


@given(arrays("float32", (3, 12, 3), elements=st.floats(-4, 4, width=32)), st.integers(0, 5))
def test_every_score_lies_between_zero_and_one_and_f1_between_or_below_its_parts(values, seed):
    logits = torch.from_numpy(values)
    measured = measure_reliability(logits, logits.amax(-1).clamp(min=0.1), [0, 1, 2] * 4, seed)
    for score in (measured.accuracy, measured.precision, measured.recall, measured.f1):
        assert bool(((score >= 0) & (score <= 1)).all())
    assert bool((measured.f1 <= torch.maximum(measured.precision, measured.recall) + 1e-9).all())


@given(arrays("float32", (2, 9, 3), elements=st.floats(-4, 4, width=32)))
def test_scaling_all_logits_of_a_component_changes_nothing(values):
    logits = torch.from_numpy(values).double()
    maximum = logits.amax(-1).clamp(min=0.25)
    one = measure_reliability(logits, maximum, [0, 1, 2] * 3)
    other = measure_reliability(logits * 2.0, maximum * 2.0, [0, 1, 2] * 3)
    assert torch.equal(one.f1, other.f1)
    assert torch.equal(one.accuracy, other.accuracy)
