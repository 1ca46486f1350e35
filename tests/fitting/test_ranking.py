"""Reliability as RASteer defines it, against cases small enough to count by hand."""

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
ASKED = AnswerTokens.of(task := task_of(*[example("a", 10)] * 2, *[example("b", 20)] * 2), task.train)


def projected(by_token: list[list[list[float]]], maximum: float = 5.0, asked: AnswerTokens = ASKED) -> Projection:
    """Per component, prompt and group the logit of the group's answer; promoted from half of ``maximum`` on."""
    values = torch.tensor(by_token)
    columns = asked.columns.expand(len(values), -1, -1)
    logits = torch.empty(values.shape).scatter(-1, columns, values)
    components = tuple(Component("head", 0, index) for index in range(len(values)))
    return Projection(components, logits, logits >= maximum / 2)


# Prompts 0 and 1 ask for the first, prompts 2 and 3 for the second.
ONE = projected([[[4.0, 1.0], [1.0, 4.0], [4.0, 4.0], [1.0, 1.0]]])


def test_the_right_answer_stands_first_among_what_is_asked():
    assert ASKED.tokens.tolist() == [[10, 20], [10, 20], [20, 10], [20, 10]]
    assert ASKED.columns.tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]
    assert ASKED.groups == ("a", "b")


def test_a_component_is_right_when_no_other_candidate_is_above_the_answer():
    assert measure_reliability(ONE, ASKED).accuracy.tolist() == [[0.5, 1.0]]


def test_only_the_prompts_own_candidates_compete_with_its_answer():
    own = task_of(example("a", 10, (10, 30)), example("b", 20, (20, 10)))
    asked = AnswerTokens.of(own, own.train)
    logits = torch.tensor([[[1.0, 0.0, 9.0], [1.0, 9.0, 0.0]]])  # 10 over 30 but not 20; 20 not over 10
    assert asked.tokens.tolist() == [[10, 30, 20], [20, 10, 20]]
    measured = measure_reliability(Projection((Component("head", 0, 0),), logits, logits > 0), asked)
    assert measured.accuracy.tolist() == [[1.0, 0.0]]


def test_promoting_this_groups_answer_on_another_groups_prompt_is_a_false_positive():
    # Group a: promoted on prompts 0 (own) and 2 (other): 1 true, 1 false, of 2. Group b: on 2 (own) and 1 (other).
    measured = measure_reliability(ONE, ASKED)
    assert measured.precision.tolist() == [0.5]
    assert measured.recall.tolist() == [0.5]
    assert measured.f1.tolist() == [0.5]


def test_a_component_that_promotes_nothing_scores_zero_and_not_nan():
    measured = measure_reliability(projected([[[0.0, 0.0]] * 4]), ASKED)
    assert (measured.precision.item(), measured.recall.item(), measured.f1.item()) == (0.0, 0.0, 0.0)


def test_negatives_are_as_many_as_positives_and_drawn_evenly_from_the_other_groups():
    # 30 prompts per group; the component promotes the first answer everywhere: of 30 negatives all are false positives.
    four = task_of(*(example(str(group), group) for group in range(4) for _ in range(30)))
    asked = AnswerTokens.of(four, four.train)
    measured = measure_reliability(projected([[[9.0, 0, 0, 0]] * 120], asked=asked), asked)
    assert measured.precision.item() == pytest.approx(0.5 / 4)


def test_of_a_task_without_sub_tasks_recall_is_how_often_the_answer_is_promoted():
    sums = task_of(example("+", 5), example("+", 6), example("x", 7))
    asked = AnswerTokens.of(sums, sums.train)
    promotes = torch.tensor([[[True], [False], [True]]])
    projection = Projection((Component("head", 0, 0),), promotes.float(), promotes)
    measured = measure_reliability(projection, asked)
    assert asked.groups == ()
    assert measured.recall.item() == pytest.approx(2 / 3)
    assert math.isnan(measured.f1.item())
    assert rank(projection, asked, metric="f1").components == (Component("head", 0, 0),)


def test_generalising_to_more_groups_comes_before_the_metric():
    orders_all_but_promotes_none = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    promotes_one_everywhere = [[9.0, 0.0]] * 4
    ranking = rank(projected([promotes_one_everywhere, orders_all_but_promotes_none]), ASKED)
    assert [component.index for component in ranking.components] == [1, 0]
    assert ranking.reliability.f1[0] < ranking.reliability.f1[1]


def test_the_threshold_decides_on_how_many_groups_a_component_counts_as_right():
    half_right = [[9.0, 0.0], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0]]  # group a: 0.5, group b: 1.0
    promotes_all = [[9.0, 9.0]] * 4  # right on all, by not being below
    measured = measure_reliability(projected([half_right, promotes_all]), ASKED)
    assert measured.generalisability(0.7).tolist() == [1, 2]
    assert measured.generalisability(0.5).tolist() == [2, 2]


@pytest.mark.parametrize("metric", ["f1", "recall", "precision"])
def test_inside_a_group_the_chosen_metric_decides(metric: str):
    promotes_all = [[9.0, 9.0]] * 4  # recall 1, precision 0.5
    promotes_half = [[9.0, 0.0], [0.0, -1.0], [0.0, 9.0], [-1.0, 0.0]]  # recall 0.5, precision 1
    ranking = rank(projected([promotes_all, promotes_half]), ASKED, metric=metric, threshold=0.4)
    assert ranking.components[0].index == (1 if metric == "precision" else 0)


def test_a_ranking_survives_being_written_down():
    ranking = rank(projected([[[9.0, 9.0]] * 4, [[1.0, 0.0]] * 4]), ASKED)
    again = ComponentRanking.from_json(ranking.to_json())
    assert again.components == ranking.components
    assert torch.equal(again.reliability.accuracy, ranking.reliability.accuracy)
    assert torch.equal(again.reliability.f1, ranking.reliability.f1)


def brute_force(logits: Tensor, promotes: Tensor) -> Reliability:
    """Algorithms 1 and 2 for ``ASKED`` with loops: ``[components, prompts, groups]`` in the order of groups."""
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
def test_reliability_is_what_counting_by_hand_gives(values):
    projection = projected(values.tolist())
    measured = measure_reliability(projection, ASKED)
    by_group = torch.tensor(values)
    expected = brute_force(by_group, by_group >= 2.5)
    for name in ("accuracy", "precision", "recall", "f1"):
        torch.testing.assert_close(getattr(measured, name), getattr(expected, name))
