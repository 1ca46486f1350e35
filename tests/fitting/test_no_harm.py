"""The stepwise search with no harm as a constraint: pressure, choice, conditions, and what is said about it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError
from steering_profiles.evaluation import Accuracy, TokenPredictor
from steering_profiles.fitting import FitCheckpoint, FitResult, FitSettings, StepwiseSettings, fit
from steering_profiles.fitting.choice import steering_of
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.fitting.no_harm import Candidate, GroupChange, choose_candidate, group_changes
from steering_profiles.fitting.pressure import Pressure
from steering_profiles.fitting.stepwise import SearchStep, weighted_loss
from steering_profiles.models import LoadedModel
from steering_profiles.reports import report_of_fit
from steering_profiles.reports.no_harm import no_harm_sentences, no_harm_table
from steering_profiles.steering import UNSTEERED
from steering_profiles.store import load_profile, save_profile
from steering_profiles.tasks.task import Example, Task
from tests.builders import build_model
from tests.short_texts import use_short_texts

CONDITION = Condition(from_position=3)


def point(step: int, errors: int, nll_increase: float = 0.0) -> SearchStep:
    scales = {Component("head", 0, index): 1.1 for index in range(step)}
    return SearchStep(step, scales, Accuracy({"a": (100 - errors, 100)}), nll_increase)


def path(*errors: int, condition: Condition | None = None) -> list[Candidate]:
    steps = [Candidate(point(step, wrong), condition) for step, wrong in enumerate(errors)]
    return [Candidate(steps[0].point), *steps[1:]]


def losing(points: float, format: str = "f") -> tuple[GroupChange, ...]:
    return (GroupChange(format, ")", 50, round(50 - points / 2), 50),)


def test_groups_are_compared_with_the_plain_model_the_largest_loss_first():
    before = {"f": Accuracy({"a": (10, 20), "b": (20, 20)}), "g": Accuracy({"a": (5, 10)})}
    after = {"f": Accuracy({"a": (12, 20), "b": (17, 20)}), "g": Accuracy({"a": (5, 10)})}
    changes = group_changes(before, after)
    assert [(change.format, change.group, change.lost) for change in changes] == [
        ("f", "b", 15.0), ("g", "a", 0.0), ("f", "a", -10.0)
    ]  # fmt: skip
    assert str(changes[0]) == "f on b: 100% to 85%"


def test_what_makes_a_group_lose_too_much_is_not_chosen_and_named():
    lost = {0: 0.0, 1: 4.0, 2: 2.0, 3: 30.0, 4: 30.0}
    chosen = choose_candidate([path(9, 5, 4, 2, 0)], lambda one: losing(lost[one.point.step]), 0.01, 3.0)
    assert chosen.candidate.point.step == 2
    assert chosen.refused == (
        "step 4: f on ): 100% to 70%", "step 3: f on ): 100% to 70%", "step 1: f on ): 100% to 96%"
    )  # fmt: skip
    chosen = choose_candidate([path(9, 5, 4, 2, 0)], lambda one: losing(lost[one.point.step]), 0.01, 4.0)
    assert (chosen.candidate.point.step, len(chosen.refused)) == (1, 2)
    chosen = choose_candidate([path(9, 5, 4, 2, 0)], lambda one: losing(lost[one.point.step]), 0.01, 1.0)
    assert (chosen.candidate.point.step, len(chosen.refused)) == (0, 4)


def test_a_loss_of_exactly_the_limit_is_allowed():
    assert choose_candidate([path(9, 0, 0)], lambda _: losing(2.0), 0.01, 2.0).candidate.point.step == 1
    assert choose_candidate([path(9, 0, 0)], lambda _: losing(2.0), 0.01, 1.9).candidate.point.step == 0


def test_the_nll_of_other_text_is_a_limit_too():
    steps = [
        Candidate(point(0, 9)),
        Candidate(point(1, 3)),
        Candidate(point(2, 3)),
        *(Candidate(point(step, 0, 0.02)) for step in (3, 4)),
    ]
    chosen = choose_candidate([steps], lambda _: (), 0.01, 2.0)
    assert chosen.candidate.point.step == 1
    assert chosen.refused == ("step 4: the NLL of other text increases by 2.00%",)


def test_a_condition_is_chosen_where_the_scales_do_harm_without_it():
    paths = [path(9, 2, 0, 0), path(9, 3, 1, 1, condition=CONDITION)]
    chosen = choose_candidate(paths, lambda one: losing(0 if one.condition or not one.point.step else 20), 0.01, 0.0)
    assert (chosen.candidate.point.step, chosen.candidate.condition) == (3, CONDITION)
    assert chosen.path == paths[1]
    assert chosen.refused == ("step 3: f on ): 100% to 80%",)
    assert str(chosen.candidate) == "step 3 where the position is 3 or later"


def test_no_condition_is_chosen_where_the_scales_do_none():
    paths = [path(9, 0, 0), path(9, 0, 0, condition=CONDITION)]
    assert choose_candidate(paths, lambda _: losing(0), 0.01, 0.0).candidate.condition is None


def test_harm_is_measured_no_longer_than_until_a_candidate_is_allowed():
    asked: list[int] = []

    def changes_of(one: Candidate) -> tuple[GroupChange, ...]:
        asked.append(one.point.step)
        return losing(30.0 if one.point.step == 3 else 0.0)

    choose_candidate([path(9, 8, 5, 0, 0, 0)], changes_of, 0.01, 1.0)
    assert asked == [4]
    choose_candidate([path(9, 8, 5, 0, 5, 8)], changes_of, 0.01, 1.0)
    assert asked == [4, 3, 1]


def test_a_group_that_loses_weighs_twice_as_much_at_every_step_until_it_has_recovered():
    pressure = Pressure(["a", "a", "b"], most=4.0)
    assert pressure.weights == [1.0, 1.0, 1.0]
    seen = []
    for leads in ([1, 1, -1], [1, -1, 1], [1, -2, 1], [-1, -2, 1], [1, 1, 1], [2, 1, -1], [2, 1, -1]):
        pressure.update(leads)
        seen.append(pressure.weights)
    assert [weights[0] for weights in seen] == [1, 2, 4, 4, 2, 1, 1]
    assert {weights[2] for weights in seen} == {1.0}, "b had none right at first, so it cannot lose"


def test_steps_are_compared_by_the_loss_under_the_weights_of_the_moment():
    """Prompts whose lead is above the margin have no loss, whatever their weight."""
    assert weighted_loss(2.0, [0.5, 3.0], [3.0, 8.0], margin=1.0) == 2.0 + (3.0 - 1) * 0.5 / 2
    assert weighted_loss(2.0, [0.5, 3.0], [3.0, 8.0], margin=4.0) == 2.0 + (2 * 3.5 + 7 * 1.0) / 2
    assert weighted_loss(2.0, [0.5, 3.0], [1.0, 1.0], margin=1.0) == weighted_loss(2.0, [], None, margin=1.0) == 2.0


def test_weights_change_the_gradient_and_not_the_loss(tiny: LoadedModel):
    examples = [Example("x", "", (5, 6, 7), 40), Example("x", "", (9, 9), 41), Example("x", "", (1, 2, 3), 42)]
    with DifferentiableScales(tiny, ["head"]) as model:
        plain = model.of_answers(examples, {})
        weighted = model.of_answers(examples, {}, [3.0, 1.0, 0.0])
        single = [model.of_answers([example], {}) for example in examples]
    assert weighted.loss == plain.loss
    assert plain.leads == pytest.approx([one.leads[0] for one in single])
    expected = (3 * single[0].by_kind["head"] + single[1].by_kind["head"]) / 3
    assert weighted.by_kind["head"].flatten().tolist() == pytest.approx(expected.flatten().tolist(), abs=1e-5)


@pytest.fixture
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    use_short_texts(monkeypatch)


def learnable_task(loaded: LoadedModel) -> Task:
    """Prompts whose answers scales can reach: the second likeliest token; and others, which are right already."""
    likeliest = {}
    prompts = [(first, second, 7) for first in range(30, 42) for second in (5, 9)]
    for prompt in prompts:
        likeliest[prompt] = loaded.model(torch.tensor([prompt])).logits[0, -1].topk(2).indices.tolist()
    wanted = tuple(Example("a", str(p), p, likeliest[p][1]) for p in prompts[::2])
    right = tuple(Example("b", str(p), p, likeliest[p][0]) for p in prompts[1::2])
    condition = Condition(last_token=(7,))
    return Task(
        name="t", seed=0, groups=("a",), train=wanted, dev=wanted, test=wanted,
        choosing_formats={"kept": right}, conditions=(condition,),
    )  # fmt: skip


def fitted(loaded: LoadedModel, checkpoint: FitCheckpoint | None = None, **settings: object) -> tuple[Task, FitResult]:
    task = learnable_task(loaded)
    stepwise = StepwiseSettings(
        max_steps=12, validation_interval=2, batch_prompts=12, step=0.4, max_scale=4.0, text_weight=0.0,
        max_nll_increase=100.0, **settings,
    )  # fmt: skip
    found = fit(
        loaded, task, name="t", command="steer fit here", settings=FitSettings(stepwise=stepwise), checkpoint=checkpoint
    )
    return task, found


def lost(loaded: LoadedModel, task: Task, result: FitResult) -> float:
    """Percentage points that the choosing format loses, measured anew."""
    steering = steering_of(result.choice.sets, loaded.identity)
    kept: Sequence[Example] = task.choosing_formats["kept"]
    with TokenPredictor(loaded) as predictor:
        before, after = predictor.accuracy(kept, UNSTEERED), predictor.accuracy(kept, steering)
    return 100 * (before.correct - after.correct) / before.total


@pytest.mark.usefixtures("_short_texts")
def test_a_fit_keeps_what_may_not_be_lost_and_a_fit_without_the_limit_does_not():
    loaded = build_model("llama")
    task, free = fitted(loaded)
    assert lost(loaded, task, free) > 10, "the search does no harm here, so that nothing is shown"
    task, bound = fitted(loaded, max_lost=10.0)
    assert lost(loaded, task, bound) <= 10
    assert bound.choice.refused
    assert bound.choice.facts["refused"] == list(bound.choice.refused)
    assert bound.profile.provenance is not None
    assert bound.profile.provenance.chosen["most_lost_by"] == str(bound.choice.harm[0])


@pytest.mark.usefixtures("_short_texts")
def test_the_conditions_of_the_task_are_tried(tmp_path):
    """Steering the last position alone is another steering than everywhere, and both are judged."""
    loaded = build_model("llama")
    task, found = fitted(loaded, max_lost=100.0, conditions=True)
    assert found.profile.when in (None, task.conditions[0])
    read = load_profile(save_profile(found.profile, tmp_path)) if not found.profile.changes_nothing else found.profile
    assert read.when == found.profile.when
    limits = [str(refused) for refused in fitted(loaded, max_lost=0.0, conditions=True)[1].choice.refused]
    assert any("where the last token is 7" in one for one in limits)
    assert any("where" not in one for one in limits)


@pytest.mark.usefixtures("_short_texts")
def test_an_interrupted_fit_with_conditions_continues_to_the_same_profile(tmp_path):
    whole = fitted(build_model("llama"), FitCheckpoint(tmp_path / "j", "k"), max_lost=5.0, conditions=True)[1]
    again = fitted(build_model("llama"), FitCheckpoint(tmp_path / "j", "k"), max_lost=5.0, conditions=True)[1]
    assert again.profile == whole.profile
    assert (again.choice.refused, again.choice.harm) == (whole.choice.refused, whole.choice.harm)


@pytest.mark.usefixtures("_short_texts")
def test_a_report_says_the_limit_what_it_refused_and_every_group():
    loaded = build_model("llama")
    task, result = fitted(loaded, max_lost=10.0)
    report = report_of_fit(loaded, task, {}, result)
    assert report.no_harm is not None
    said = " ".join(no_harm_sentences(report.no_harm, result.profile))
    assert "may lose more than 10 points" in said
    assert f"not allowed: {result.choice.refused[0]}" in said
    rows = no_harm_table(report.no_harm).rows
    assert [row[0].text for row in rows] == [change.format for change in result.choice.harm]
    assert {row[0].text for row in rows} == {"dev", "kept"}
    free = report_of_fit(loaded, task, {}, fitted(loaded)[1])
    assert free.no_harm is None


def test_conditions_need_a_task_that_has_some(tiny: LoadedModel):
    task = replace(learnable_task(tiny), conditions=())
    settings = FitSettings(stepwise=StepwiseSettings(max_lost=1.0, conditions=True))
    with pytest.raises(TaskError, match="task t has none; leave --conditions out"):
        fit(tiny, task, name="t", command="", settings=settings)


def test_a_limit_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match=r"max lost is 101; allowed: percentage points, 0\.\.100"):
        StepwiseSettings(max_lost=101.0)
