"""Settings of the final layer for each group alone: cross-validation, the rule, and the profile of all of them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.conditions import Condition
from steering_profiles.errors import FitError, TaskError
from steering_profiles.evaluation import TemperedChange, TokenPredictor
from steering_profiles.evaluation.tempered import PairedChange
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, intercept_tensor
from steering_profiles.fit_settings import FinalLayerSettings
from steering_profiles.fitting import FitCheckpoint, fit_final_layer_groups, fit_key
from steering_profiles.fitting.decomposition import decompose, record_layer
from steering_profiles.fitting.final_layer_candidates import FinalLayerCandidate
from steering_profiles.fitting.group_candidates import FOLDS, TEMPERATURES, GroupCandidate, GroupSearch, folds_of
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_profiles.tasks import Example, Task
from tests.builders import build_model, build_profile, steer
from tests.fitting.test_final_layer import answered, mean_mlp_output, prompts
from tests.short_texts import use_short_texts

SETTINGS = FinalLayerSettings(
    self_only_attention=(0.0, 0.5, 1.0), lambdas=(-4.0, 0.0, 4.0), sources=("mean",), max_lost=100.0, per_group=True
)
LAST = {"steered": 40, "plain": 41}
"""Last token of the prompts of each group, which the group's condition tests."""


@pytest.fixture(autouse=True)
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    use_short_texts(monkeypatch)


def task_of(loaded: LoadedModel, steered: Steering, count: int = 400) -> Task:
    """Answers of one group are drawn from the steered model's distribution, and those of the other from the plain."""

    def asked(seed: int) -> tuple[Example, ...]:
        examples: list[Example] = []
        for place, (group, steering) in enumerate({"steered": steered, "plain": UNSTEERED}.items()):
            ending = [(*prompt, LAST[group]) for prompt in prompts(seed + place, count)]
            examples += [replace(one, group=group) for one in answered(loaded, ending, steering)]
        return tuple(examples)

    return Task(
        name="constructed",
        seed=0,
        groups=("steered", "plain"),
        train=asked(10),
        dev=asked(20),
        test=asked(30),
        group_conditions={group: Condition(last_token=(token,)) for group, token in LAST.items()},
    )


def of_group(task: Task, group: str) -> list[Example]:
    return [one for one in (*task.train, *task.dev) if one.group == group]


def test_a_group_gets_the_settings_its_answers_come_from_and_one_that_needs_none_is_left(tiny: LoadedModel):
    task = task_of(tiny, steer(build_profile(tiny, self_only_attention=1.0)))
    result = fit_final_layer_groups(tiny, task, name="tiny", command="", settings=SETTINGS)
    steered, plain = result.choices
    assert steered.chosen is not None
    assert steered.chosen.candidate == FinalLayerCandidate(1.0, 0.0, None)
    assert plain.chosen is None
    (layer,) = result.profile.final_layers
    assert (layer.self_only_attention, layer.when) == (1.0, Condition(last_token=(40,)))
    assert result.profile.when == Condition(part="last_prompt_token")
    assert result.test.both_tempered is not None
    changes = result.test.both_tempered.groups
    assert changes["steered"].nll.high < 0
    assert changes["plain"].accuracy == PairedChange(0.0, 0.0)


def test_candidates_are_measured_with_the_intercept_of_the_other_folds(tiny: LoadedModel):
    task = task_of(tiny, steer(build_profile(tiny, intercept_scale=2.0)), count=30)
    result = fit_final_layer_groups(tiny, task, name="tiny", command="", settings=SETTINGS)
    examples = of_group(task, "steered")
    folds = folds_of(examples)
    likely = np.zeros((len(examples), len(TEMPERATURES)))
    with TokenPredictor(tiny) as predictor:
        plain = predictor.answers_at(examples, TEMPERATURES)
        for fold in range(FOLDS):
            within = [at for at, one in enumerate(folds) if one == fold]
            mean = mean_mlp_output(tiny, [examples[at] for at in range(len(examples)) if folds[at] != fold])
            profile = build_profile(tiny, self_only_attention=0.5, intercept_scale=-4.0)
            profile = profile.model_copy(update={"tensors": {INTERCEPT_TENSOR: mean.astype(np.float32)}})
            found = predictor.answers_at([examples[at] for at in within], TEMPERATURES, steer(profile))
            for place, temperature in enumerate(TEMPERATURES):
                likely[within, place] = [one.log_probability for one in found[temperature]]
    before = min(-np.mean([one.log_probability for one in plain[t]]) for t in TEMPERATURES)
    (measured,) = [one for one in result.choices[0].measured if one.candidate == FinalLayerCandidate(0.5, -4.0, "mean")]
    assert measured.change.nll.mean == pytest.approx(-likely.mean(axis=0).max() - before, abs=1e-6)
    assert measured.temperature == TEMPERATURES[int(likely.mean(axis=0).argmax())]


@pytest.mark.parametrize("source", ["mean", "regression"])
def test_the_profile_has_the_intercept_of_all_prompts_of_the_group(tiny: LoadedModel, source: str):
    """Answers are drawn from a model that is shifted by the intercept of other prompts of the group."""
    ending = [(*prompt, LAST["steered"]) for prompt in prompts(7, 60)]
    others = record_layer(tiny, [Example("steered", "", prompt, 0) for prompt in ending], -1)
    vector = others.mlp.mean(dim=0) if source == "mean" else decompose(others).intercept
    shift = build_profile(tiny, intercept_scale=-4.0)
    shift = shift.model_copy(update={"tensors": {INTERCEPT_TENSOR: vector.numpy().astype(np.float32)}})
    task = task_of(tiny, steer(shift), count=200)
    asked = replace(SETTINGS, sources=(source,), self_only_attention=(0.0,), lambdas=(-4.0,))
    result = fit_final_layer_groups(tiny, task, name="tiny", command="", settings=asked)
    assert result.choices[0].chosen is not None
    record = record_layer(tiny, of_group(task, "steered"), -1)
    expected = record.mlp.mean(dim=0) if source == "mean" else decompose(record).intercept
    assert result.profile.final_layers[0].when == task.group_conditions["steered"]
    torch.testing.assert_close(torch.from_numpy(result.profile.tensors[intercept_tensor(0)]), expected.float())


def test_the_profile_predicts_what_is_reported(tiny: LoadedModel):
    task = task_of(tiny, steer(build_profile(tiny, self_only_attention=1.0)))
    result = fit_final_layer_groups(tiny, task, name="tiny", command="", settings=SETTINGS)
    with TokenPredictor(tiny) as predictor:
        accuracy = predictor.accuracy(task.test, steer(result.profile))
    assert result.test.profile.all_prompts.accuracy == accuracy
    assert result.profile.provenance is not None
    assert result.profile.provenance.test["after"] == dict(accuracy.percent)


def test_an_interrupted_fit_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded = build_model("llama")
    task = task_of(loaded, steer(build_profile(loaded, self_only_attention=1.0)), count=30)
    path, key = tmp_path / "fit", fit_key(loaded, task, SETTINGS)
    once = fit_final_layer_groups(
        loaded, task, name="tiny", command="", settings=SETTINGS, checkpoint=FitCheckpoint(path, key)
    )
    monkeypatch.setattr(GroupSearch, "_measure", lambda *_: pytest.fail("it is measured again"))
    again = fit_final_layer_groups(
        loaded, task, name="tiny", command="", settings=SETTINGS, checkpoint=FitCheckpoint(path, key)
    )
    assert again.choices == once.choices
    assert fit_key(loaded, replace(task, group_conditions={}), SETTINGS) != key


def test_a_task_whose_groups_cannot_be_recognised_is_refused(tiny: LoadedModel):
    task = replace(task_of(tiny, UNSTEERED, count=10), group_conditions={"steered": Condition(last_token=(40,))})
    with pytest.raises(TaskError, match="no conditions that tell which sub-task a prompt belongs to"):
        fit_final_layer_groups(tiny, task, name="tiny", command="", settings=SETTINGS)


def test_a_group_with_one_answer_cannot_be_cross_validated(tiny: LoadedModel):
    task = task_of(tiny, UNSTEERED, count=10)
    same = tuple(replace(one, answer=7) if one.group == "plain" else one for one in task.train)
    task = replace(task, train=same, dev=tuple(one for one in task.dev if one.group == "steered"))
    with pytest.raises(FitError, match="cannot choose settings for plain: all prompts have the same answer"):
        fit_final_layer_groups(tiny, task, name="tiny", command="", settings=SETTINGS)


@given(answers=st.lists(st.integers(0, 9), min_size=2, max_size=60), most=st.integers(2, 6))
def test_folds_divide_answers_and_are_of_similar_size(answers: list[int], most: int):
    examples = [Example("g", "", (1,), answer) for answer in answers]
    if len(set(answers)) < 2:
        with pytest.raises(FitError, match="at least two answers"):
            folds_of(examples, most)
        return
    folds = folds_of(examples, most)
    assert len({(answer, fold) for answer, fold in zip(answers, folds, strict=True)}) == len(set(answers))
    sizes = Counter(folds)
    assert sorted(sizes) == list(range(min(most, len(set(answers)))))
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(answers).values())
    assert folds == folds_of(examples, most)


def changed(nll: tuple[float, float | None], accuracy: float) -> GroupCandidate:
    change = TemperedChange(100, 2.0, PairedChange(*nll), 0.5, PairedChange(accuracy, 0.1))
    return GroupCandidate(FinalLayerCandidate(1.0, 0.0, None), 1.0, change)


@pytest.mark.parametrize(
    ("candidate", "allowed"),
    [
        (changed((-0.2, 0.1), 0.0), True),
        (changed((-0.2, 0.2), 0.0), False),
        (changed((-0.2, None), 0.0), False),
        (changed((-0.2, 0.1), -0.01), True),
        (changed((-0.2, 0.1), -0.011), False),
    ],
    ids=["better", "within its interval", "no interval", "loses what may be lost", "loses more"],
)
def test_settings_are_allowed_that_gain_more_than_their_interval_and_lose_no_accuracy(
    candidate: GroupCandidate, allowed: bool
):
    assert candidate.allowed(replace(SETTINGS, max_lost=1.0)) == allowed
