"""Reliability as RASteer defines it, on cases that can be counted by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from steering_profiles.fitting.answer_tokens import AnswerTokens
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.projection import Projection
from steering_profiles.fitting.ranking import ComponentRanking, Reliability, measure_reliability, rank
from steering_profiles.tasks.task import Example, Task


def example(group: str, answer: int, candidates: tuple[int, ...] = ()) -> Example:
    return Example(group, "", (1,), answer, candidates)


def task_of(*examples: Example) -> Task:
    groups = tuple(dict.fromkeys(example.group for example in examples))
    return Task(name="t", seed=0, groups=groups, train=examples, dev=examples, test=examples)


# Two groups with answers 10 and 20; two prompts of each.
ANSWER_TOKENS = AnswerTokens.of(task := task_of(*[example("a", 10)] * 2, *[example("b", 20)] * 2), task.train)


def projected(
    by_token: list[list[list[float]]], maximum: float = 5.0, answer_tokens: AnswerTokens = ANSWER_TOKENS
) -> Projection:
    """Return a projection from the logits of the groups' answers; those from half of ``maximum`` are promoted."""
    values = torch.tensor(by_token)
    columns = answer_tokens.columns.expand(len(values), -1, -1)
    logits = torch.empty(values.shape).scatter(-1, columns, values)
    components = tuple(Component("head", 0, index) for index in range(len(values)))
    return Projection(components, logits, logits >= maximum / 2)


# Prompts 0 and 1 belong to the first group, prompts 2 and 3 to the second.
ONE = projected([[[4.0, 1.0], [1.0, 4.0], [4.0, 4.0], [1.0, 1.0]]])


def test_the_correct_answer_is_the_first_token():
    assert ANSWER_TOKENS.tokens.tolist() == [[10, 20], [10, 20], [20, 10], [20, 10]]
    assert ANSWER_TOKENS.columns.tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]
    assert ANSWER_TOKENS.groups == ("a", "b")


def test_a_component_is_correct_if_no_candidate_has_a_larger_logit_than_the_answer():
    assert measure_reliability(ONE, ANSWER_TOKENS).accuracy.tolist() == [[0.5, 1.0]]


def test_only_the_prompts_own_candidates_compete_with_its_answer():
    own = task_of(example("a", 10, (10, 30)), example("b", 20, (20, 10)))
    answer_tokens = AnswerTokens.of(own, own.train)
    logits = torch.tensor([[[1.0, 0.0, 9.0], [1.0, 9.0, 0.0]]])  # 10 over 30 but not 20; 20 not over 10
    assert answer_tokens.tokens.tolist() == [[10, 30, 20], [20, 10, 20]]
    measured = measure_reliability(Projection((Component("head", 0, 0),), logits, logits > 0), answer_tokens)
    assert measured.accuracy.tolist() == [[1.0, 0.0]]


def test_promoting_this_groups_answer_on_another_groups_prompt_is_a_false_positive():
    # Group a: promoted on prompts 0 (own) and 2 (other): 1 true, 1 false, of 2. Group b: on 2 (own) and 1 (other).
    measured = measure_reliability(ONE, ANSWER_TOKENS)
    assert measured.precision.tolist() == [0.5]
    assert measured.recall.tolist() == [0.5]
    assert measured.f1.tolist() == [0.5]


def test_a_component_that_promotes_nothing_has_zero_precision():
    measured = measure_reliability(projected([[[0.0, 0.0]] * 4]), ANSWER_TOKENS)
    assert (measured.precision.item(), measured.recall.item(), measured.f1.item()) == (0.0, 0.0, 0.0)


def test_negatives_are_as_many_as_positives_and_drawn_evenly_from_the_other_groups():
    # 30 prompts per group; the component promotes the first answer everywhere: of 30 negatives all are false positives.
    four = task_of(*(example(str(group), group) for group in range(4) for _ in range(30)))
    answer_tokens = AnswerTokens.of(four, four.train)
    measured = measure_reliability(projected([[[9.0, 0, 0, 0]] * 120], answer_tokens=answer_tokens), answer_tokens)
    assert measured.precision.item() == pytest.approx(0.5 / 4)


def test_without_sub_tasks_recall_is_how_often_the_answer_is_promoted():
    sums = task_of(example("+", 5), example("+", 6), example("x", 7))
    answer_tokens = AnswerTokens.of(sums, sums.train)
    promotes = torch.tensor([[[True], [False], [True]]])
    projection = Projection((Component("head", 0, 0),), promotes.float(), promotes)
    measured = measure_reliability(projection, answer_tokens)
    assert answer_tokens.groups == ()
    assert measured.recall.item() == pytest.approx(2 / 3)
    assert math.isnan(measured.f1.item())
    assert rank(projection, answer_tokens, metric="f1").components == (Component("head", 0, 0),)


def test_ranking_is_by_generalisability_before_the_metric():
    orders_all_but_promotes_none = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    promotes_one_everywhere = [[9.0, 0.0]] * 4
    ranking = rank(projected([promotes_one_everywhere, orders_all_but_promotes_none]), ANSWER_TOKENS)
    assert [component.index for component in ranking.components] == [1, 0]
    assert ranking.reliability.f1[0] < ranking.reliability.f1[1]


def test_generalisability_depends_on_the_threshold():
    half_right = [[9.0, 0.0], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0]]  # group a: 0.5, group b: 1.0
    promotes_all = [[9.0, 9.0]] * 4  # correct on all, since ties count
    measured = measure_reliability(projected([half_right, promotes_all]), ANSWER_TOKENS)
    assert measured.generalisability(0.7).tolist() == [1, 2]
    assert measured.generalisability(0.5).tolist() == [2, 2]


@pytest.mark.parametrize("metric", ["f1", "recall", "precision"])
def test_components_of_equal_generalisability_are_ranked_by_the_metric(metric: str):
    promotes_all = [[9.0, 9.0]] * 4  # recall 1, precision 0.5
    promotes_half = [[9.0, 0.0], [0.0, -1.0], [0.0, 9.0], [-1.0, 0.0]]  # recall 0.5, precision 1
    ranking = rank(projected([promotes_all, promotes_half]), ANSWER_TOKENS, metric=metric, threshold=0.4)
    assert ranking.components[0].index == (1 if metric == "precision" else 0)


def test_a_ranking_is_restored_from_json():
    ranking = rank(projected([[[9.0, 9.0]] * 4, [[1.0, 0.0]] * 4]), ANSWER_TOKENS)
    again = ComponentRanking.from_json(ranking.to_json())
    assert again.components == ranking.components
    assert torch.equal(again.reliability.accuracy, ranking.reliability.accuracy)
    assert torch.equal(again.reliability.f1, ranking.reliability.f1)


def brute_force(logits: Tensor, promotes: Tensor) -> Reliability:
    """Compute algorithms 1 and 2 for ``ANSWER_TOKENS`` with loops; arguments are ``[components, prompts, groups]``."""
    own = {0: [0, 1], 1: [2, 3]}
    accuracy, precision, recall, f1 = [], [], [], []
    for values, promoted in zip(logits.tolist(), promotes.tolist(), strict=True):
        of_groups = []
        accuracy.append([])
        for group, prompts in own.items():
            accuracy[-1].append(sum(values[p][group] >= max(values[p]) for p in prompts) / 2)
            true = sum(promoted[p][group] for p in prompts)
            false = sum(promoted[p][group] for p in own[1 - group])
            of_groups.append(
                (
                    true / (true + false) if true + false else 0.0,
                    true / 2,
                    2 * true / (true + false + 2),
                )
            )
        for sums, at in ((precision, 0), (recall, 1), (f1, 2)):
            sums.append((of_groups[0][at] + of_groups[1][at]) / 2)
    as_tensor = [torch.tensor(one, dtype=torch.double) for one in (accuracy, precision, recall, f1)]
    return Reliability(*as_tensor)


@given(arrays("float32", (3, 4, 2), elements=st.floats(-8, 8, width=16)))
def test_reliability_equals_a_direct_count(values):
    projection = projected(values.tolist())
    measured = measure_reliability(projection, ANSWER_TOKENS)
    by_group = torch.tensor(values)
    expected = brute_force(by_group, by_group >= 2.5)
    for name in ("accuracy", "precision", "recall", "f1"):
        torch.testing.assert_close(getattr(measured, name), getattr(expected, name))
