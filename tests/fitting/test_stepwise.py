"""The stepwise search: its steps, measurements and choice."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy, TokenPredictor, Window
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.components import Component, Scales
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.fitting.stepwise import SearchStep, StepwiseSettings, choose_step, search_path
from steering_profiles.models import LoadedModel
from steering_profiles.tasks.task import Example, Task

EXAMPLES = tuple(
    Example(group, f"{group} {first}", (first, 6, 7), answer)
    for group, answer in (("a", 40), ("b", 41))
    for first in range(8)
)
TASK = Task(name="t", seed=0, groups=("a", "b"), train=EXAMPLES, dev=EXAMPLES, test=EXAMPLES)
TEXTS = [Window((5, 6, 7, 8), 1), Window((9, 10, 11), 1)]
SETTINGS = StepwiseSettings(
    batch_prompts=8, max_steps=12, validation_interval=3, max_components=4, components_per_step=2
)


def search(
    loaded: LoadedModel,
    settings: StepwiseSettings = SETTINGS,
    errors: Sequence[int] = (),
    nll_increase: float = 0.0,
    checkpoint: FitCheckpoint | None = None,
    condition: Condition | None = None,
    task: Task = TASK,
) -> tuple[list[SearchStep], list[Scales]]:
    seen: list[Scales] = []

    def measure(scales: Scales) -> tuple[Accuracy, float]:
        wrong = errors[len(seen)] if len(seen) < len(errors) else 3
        seen.append(dict(scales))
        return Accuracy({"a": (10 - wrong, 10)}), nll_increase * sum(abs(scale - 1) for scale in scales.values())

    path = search_path(
        loaded, task, TEXTS, ["head"], measure, settings=settings, condition=condition, checkpoint=checkpoint
    )
    return path, seen


def test_the_search_starts_at_the_plain_model_and_is_measured_at_the_given_interval(tiny: LoadedModel):
    path, seen = search(tiny)
    assert path[0].scales == {}
    assert [point.step for point in path[:4]] == [0, 3, 6, 9]
    assert [point.scales for point in path] == seen


def steepest(slope: Tensor) -> Scales:
    """Return the scales after one step of 0.1 against the largest derivative."""
    place = divmod(int(slope.abs().argmax()), slope.shape[1])
    return {Component("head", *place): 1.1 if slope[place] < 0 else 0.9}


def test_a_step_changes_the_component_with_the_largest_gradient(tiny: LoadedModel):
    path, _ = search(
        tiny,
        StepwiseSettings(batch_prompts=16, max_steps=1, validation_interval=1, components_per_step=1, text_weight=0.0),
    )
    with DifferentiableScales(tiny, ["head"]) as model:
        slope = model.of_answers(EXAMPLES, {}).by_kind["head"]
    assert path[1].scales == steepest(slope)


def test_under_a_condition_it_moves_what_the_positions_of_the_condition_need(tiny: LoadedModel):
    at_the_end = Condition(last_token=(7,))
    path, _ = search(tiny, condition=at_the_end)
    with DifferentiableScales(tiny, ["head"], at_the_end) as model:
        slope = model.of_answers(EXAMPLES[:8], {}).by_kind["head"]
    component = max(path[1].scales, key=lambda one: abs(path[1].scales[one] - 1))
    assert float(slope[component.layer, component.index]) != 0
    assert path[1].scales != search(tiny)[0][1].scales, "the condition holds everywhere, so this would prove nothing"


def test_under_a_condition_that_never_holds_nothing_is_moved(tiny: LoadedModel):
    path, _ = search(tiny, condition=Condition(last_token=(200,)))
    assert [point.scales for point in path] == [{}, {}]


def test_the_nll_of_other_text_counts_against_a_change(tiny: LoadedModel):
    settings = StepwiseSettings(
        batch_prompts=16, max_steps=1, validation_interval=1, components_per_step=1, text_weight=1000.0
    )
    path, _ = search(tiny, settings)
    with DifferentiableScales(tiny, ["head"]) as model:
        slope = model.of_texts(TEXTS, {}).by_kind["head"]
    assert path[1].scales == steepest(slope)


LONG_STEPS = StepwiseSettings(
    batch_prompts=16, max_steps=30, validation_interval=1, components_per_step=2, step=0.4, max_scale=1.8
)


def test_with_a_larger_margin_the_search_goes_on_where_answers_are_right(tiny: LoadedModel):
    """The answers are those of the plain model, which lead by more than the smaller margin."""
    with TokenPredictor(tiny) as predictor:
        likeliest = predictor.predict(EXAMPLES)
    right = tuple(replace(example, answer=answer) for example, answer in zip(EXAMPLES, likeliest, strict=True))
    task = replace(TASK, train=right, dev=right)
    ways = {}
    for margin in (1e-6, 50.0):
        settings = replace(SETTINGS, batch_prompts=16, text_weight=0.0, margin=margin)
        ways[margin], _ = search(tiny, settings, task=task)
    assert [point.scales for point in ways[1e-6]] == [{}, {}], "nothing is to be gained"
    with DifferentiableScales(tiny, ["head"]) as model:
        before, after = (sum(model.of_answers(right, one.scales).leads) for one in (ways[50.0][0], ways[50.0][-1]))
    assert after > before


def test_the_step_size_is_halved_after_a_step_that_does_not_reduce_the_loss(tiny: LoadedModel):
    path, _ = search(tiny, LONG_STEPS)
    expected, size, least = [], LONG_STEPS.step, float("inf")
    with DifferentiableScales(tiny, ["head"]) as model:
        for point in path[:-1]:
            answers, texts = model.of_answers(EXAMPLES, point.scales), model.of_texts(TEXTS, point.scales)
            loss = answers.loss + LONG_STEPS.text_weight * texts.loss
            size = size if loss < least else size / 2
            least = min(loss, least)
            expected.append(size)
    assert len(set(expected)) > 3
    for before, after, size in zip(path, path[1:], expected, strict=False):
        moved = {c: after.scales.get(c, 1.0) - before.scales.get(c, 1.0) for c in {*before.scales, *after.scales}}
        assert [abs(by) for by in moved.values() if by] == pytest.approx(
            [size] * LONG_STEPS.components_per_step, abs=2e-6
        )


def test_a_component_whose_scale_is_back_at_1_is_not_counted(tiny: LoadedModel):
    path, _ = search(tiny, LONG_STEPS)
    assert 1.0 not in {scale for point in path for scale in point.scales.values()}


def test_the_number_of_components_and_their_scales_are_limited(tiny: LoadedModel):
    path, _ = search(
        tiny, StepwiseSettings(batch_prompts=8, max_steps=40, validation_interval=1, max_components=2, max_scale=1.25)
    )
    assert max(len(point.scales) for point in path) == 2
    assert max(abs(scale - 1) for point in path for scale in point.scales.values()) <= 0.25
    assert path[-1].step < 40  # no further change was allowed


def test_the_search_ends_after_patience_measurements_without_an_error(tiny: LoadedModel):
    settings = StepwiseSettings(batch_prompts=8, max_steps=40, validation_interval=1, patience=3)
    path, _ = search(tiny, settings, errors=[5, 2, 0, 1, 0, 0, 0, 9])
    assert [point.errors for point in path] == [5, 2, 0, 1, 0, 0, 0]


def test_the_search_ends_when_the_nll_of_other_text_is_far_above_the_limit(tiny: LoadedModel):
    path, _ = search(
        tiny,
        StepwiseSettings(batch_prompts=8, max_steps=40, validation_interval=1, max_nll_increase=0.01),
        nll_increase=0.05,
    )
    assert path[-1].nll_increase > 0.02
    assert all(point.nll_increase <= 0.02 for point in path[:-1])


def test_an_interrupted_search_continues_where_it_stopped(tiny: LoadedModel, tmp_path):
    whole, _ = search(tiny)

    class Interrupted(Exception):
        pass

    calls = 0

    def measure(scales: Scales) -> tuple[Accuracy, float]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted
        return Accuracy({"a": (7, 10)}), 0.0

    with pytest.raises(Interrupted):
        search_path(
            tiny, TASK, TEXTS, ["head"], measure, settings=SETTINGS, checkpoint=FitCheckpoint(tmp_path / "j", "k")
        )
    again, seen = search(tiny, checkpoint=FitCheckpoint(tmp_path / "j", "k"))
    assert again == whole
    assert len(seen) == len(whole) - 2


def point(step: int, errors: int, nll_increase: float = 0.0) -> SearchStep:
    scales = {Component("head", 0, index): 1.1 for index in range(step)}
    return SearchStep(step, scales, Accuracy({"a": (250 - errors, 250)}), nll_increase)


def test_a_step_is_judged_by_the_worst_of_itself_and_its_neighbours():
    assert choose_step([point(0, 9), point(1, 0), point(2, 4), point(3, 0), point(4, 0), point(5, 1)], 0.01).step == 4


def test_of_equal_points_the_one_with_the_smallest_total_change_is_chosen():
    assert choose_step([point(0, 5), point(1, 0), point(2, 0), point(3, 0), point(4, 0)], 0.01).step == 1


def test_the_plain_model_is_no_neighbour():
    assert choose_step([point(0, 9), point(1, 2), point(2, 2), point(3, 8)], 0.01).step == 1


def test_a_step_above_the_limit_on_other_text_is_never_chosen():
    assert choose_step([point(0, 5), point(1, 3), point(2, 3), point(3, 0, 0.02), point(4, 0, 0.02)], 0.01).step == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 0.03)), min_size=1, max_size=9))
def test_the_choice_is_never_worse_than_the_plain_model(points: list[tuple[int, float]]):
    path = [point(step, errors, nll_increase if step else 0.0) for step, (errors, nll_increase) in enumerate(points)]
    chosen = choose_step(path, 0.01)
    assert chosen.errors <= path[0].errors
    assert chosen.nll_increase <= 0.01
