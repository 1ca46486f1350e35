"""The fit of the final layer's settings, from task to profile."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from steering_profiles.compatibility import check_compatibility
from steering_profiles.errors import FitError
from steering_profiles.evaluation import TextPredictor, TokenPredictor, held_out, text_windows
from steering_profiles.evaluation.calibration import calibrate_arm
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, Gate
from steering_profiles.fitting import (
    FinalLayerResult,
    FinalLayerSettings,
    FitCheckpoint,
    fit_final_layer,
    fit_key,
)
from steering_profiles.fitting.final_layer_candidates import (
    PLAIN,
    make_candidates,
)
from steering_profiles.fitting.gating import TEMPERATURES, Answers, CandidatePredictions
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering, attach
from steering_profiles.store import save_profile
from steering_profiles.tasks import Example, Task
from steering_profiles.tasks.batches import equal_length_batches
from tests.builders import FAMILIES, build_model, build_profile, steer
from tests.short_texts import use_short_texts

SMALL = FinalLayerSettings(
    self_only_attention=(0.0, 0.5, 1.0),
    lambdas=(-4.0, 0.0, 4.0),
    sources=("mean",),
    positions=("all",),
    max_lost=100.0,
    max_nll_increase=10.0,
)
"""Settings without limits, which have tests of their own."""


@pytest.fixture(autouse=True)
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    use_short_texts(monkeypatch)


def prompts(seed: int, count: int) -> list[tuple[int, ...]]:
    draw = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(0, 250, (6 + i % 2,), generator=draw).tolist()) for i in range(count)]


def task_answered_by(loaded: LoadedModel, own: float = 0.0, scale: float = 0.0, count: int = 60) -> Task:
    """Return a task whose answers are drawn from the model's distribution with the given final-layer settings.

    The intercept is the mean MLP output on train. Up to sampling noise these settings have the smallest NLL.
    """
    train = [Example("even" if i % 2 else "odd", "", p, 0) for i, p in enumerate(prompts(1, 40))]
    profile = build_profile(loaded, self_only_attention=own, intercept_scale=scale)
    if scale:
        vector = mean_mlp_output(loaded, train).astype(np.float32)
        profile = profile.model_copy(update={"tensors": {INTERCEPT_TENSOR: vector}})
    return Task(
        name="constructed",
        seed=0,
        groups=("even", "odd"),
        train=tuple(train),
        dev=tuple(answered(loaded, prompts(2, count), steer(profile))),
        test=tuple(answered(loaded, prompts(3, count), steer(profile))),
        fit_formats={"longer": tuple(answered(loaded, [p + p for p in prompts(4, 20)], steer(profile)))},
    )


@torch.no_grad()
def answered(loaded: LoadedModel, asked: list[tuple[int, ...]], steering: Steering) -> list[Example]:
    blank = [Example("even" if index % 2 else "odd", "", prompt, 0) for index, prompt in enumerate(asked)]
    draw, handle, answers = torch.Generator().manual_seed(5), attach(loaded), {}
    for indices in equal_length_batches(blank):
        with handle.applied([steering] * len(indices)):
            likely = loaded.model(torch.tensor([asked[i] for i in indices])).logits[:, -1].softmax(dim=-1)
        answers |= zip(indices, likely.multinomial(1, generator=draw).flatten().tolist(), strict=True)
    handle.remove()
    return [replace(example, answer=answers[index]) for index, example in enumerate(blank)]


@torch.no_grad()
def mean_mlp_output(loaded: LoadedModel, examples: list[Example]) -> np.ndarray:
    outputs = []
    hook = loaded.anatomy.final_layer.mlp.register_forward_hook(lambda *args: outputs.append(args[2][0, -1]))
    for example in examples:
        loaded.model(torch.tensor([example.prompt]))
    hook.remove()
    return torch.stack(outputs).mean(dim=0).numpy()


def small_fit(loaded: LoadedModel, task: Task, checkpoint: FitCheckpoint | None = None) -> FinalLayerResult:
    return fit_final_layer(loaded, task, name="tiny", command="steer fit here", settings=SMALL, checkpoint=checkpoint)


@pytest.mark.parametrize(("own", "scale"), [(1.0, 0.0), (0.0, -4.0), (0.0, 4.0), (0.5, -4.0), (0.0, 0.0)])
def test_the_settings_that_generated_the_answers_are_found(tiny: LoadedModel, own: float, scale: float):
    task = replace(task_answered_by(tiny, own, scale, count=400), fit_formats={})
    result = small_fit(tiny, task)
    found = result.profile.final_layer
    assert (found.self_only_attention, found.intercept_scale) == (own, scale)
    baseline, profile = result.test.baseline.all_prompts, result.test.profile.all_prompts
    if (own, scale) == (0.0, 0.0):
        assert result.profile.summary == "nothing"
        assert profile == baseline
    else:
        assert profile.balanced_nll < baseline.balanced_nll


def test_results_are_those_of_the_whole_model_with_the_profile(tiny: LoadedModel):
    task = replace(task_answered_by(tiny, 1.0, count=200), fit_formats={})
    result = small_fit(tiny, task)
    assert result.chosen.candidate != PLAIN
    with TokenPredictor(tiny) as predictor:
        answers = predictor.answers(task.test, Steering((ProfileAtStrength(result.profile),)))
    every = result.test.profile.all_prompts.pooled
    assert every.nll == pytest.approx(-np.mean([answer.log_probability for answer in answers]), rel=1e-12)
    assert every.correct == sum(answer.correct for answer in answers)


def test_the_mean_intercept_is_the_mean_mlp_output_on_train(tiny: LoadedModel):
    task = task_answered_by(tiny, 0.0, -4.0)
    result = small_fit(tiny, task)
    expected = mean_mlp_output(tiny, list(task.train)).astype(np.float32)
    np.testing.assert_allclose(result.profile.tensors[INTERCEPT_TENSOR], expected, rtol=1e-5)
    assert result.r2 is None


def test_a_fitted_profile_has_provenance_and_matches_its_model(tiny: LoadedModel):
    task = task_answered_by(tiny, 1.0)
    result = small_fit(tiny, task)
    provenance = result.profile.provenance
    assert check_compatibility(result.profile, tiny.identity).matches
    assert result.profile.method == "final-layer"
    assert provenance is not None
    assert (provenance.task, provenance.seed, provenance.command) == ("constructed", 0, "steer fit here")
    assert len(provenance.grid["points"]) == len(make_candidates(SMALL)) == len(result.grid)
    assert provenance.chosen["own_attention"] == result.profile.final_layer.self_only_attention
    assert provenance.test["after"] == result.test.profile.all_prompts.accuracy.percent
    assert provenance.test["after: calibration"]["nll"] == round(result.test.profile.all_prompts.pooled.nll, 5)
    assert {"prose", "code"} <= set(provenance.side_effects)


def test_a_fit_writes_the_same_bytes_every_time(tmp_path):
    written = []
    for run in ("one", "two"):
        loaded = build_model("llama")
        path = save_profile(small_fit(loaded, task_answered_by(loaded, 0.0, -4.0)).profile, tmp_path / run)
        written.append((path.read_bytes(), path.with_suffix(".safetensors").read_bytes()))
    assert written[0] == written[1]


class Interrupted(Exception):
    pass


class InterruptedCheckpoint(FitCheckpoint):
    """Interrupts the fit after ``after`` results."""

    after = 0

    def recall(self, name, make):
        if len(self) >= self.after:
            raise Interrupted
        return super().recall(name, make)


@pytest.mark.parametrize("after", [1, 7])
def test_an_interrupted_fit_continues_to_the_same_result(tiny: LoadedModel, tmp_path, monkeypatch, after: int):
    task = task_answered_by(tiny, 0.0, -4.0)
    whole = small_fit(tiny, task)
    path, key = tmp_path / "fit.jsonl", fit_key(tiny, task, SMALL)
    interrupted = InterruptedCheckpoint(path, key)
    interrupted.after = after
    with pytest.raises(Interrupted):
        small_fit(tiny, task, interrupted)
    monkeypatch.setattr("steering_profiles.fitting.final_layer.record_layer", None)  # this stage is in the checkpoint
    checkpoint = FitCheckpoint(path, key)
    assert len(checkpoint) == after
    again = small_fit(tiny, task, checkpoint)
    save_profile(whole.profile, tmp_path / "whole")
    save_profile(again.profile, tmp_path / "again")
    for name in ("tiny.json", "tiny.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert again.grid == whole.grid


def test_too_few_prompts_for_a_regression_are_enough_for_the_mean(tiny: LoadedModel):
    task = task_answered_by(tiny, 0.0, -4.0)
    task = replace(task, train=task.train[:3])
    both = replace(SMALL, sources=("regression", "mean"))
    with pytest.raises(
        FitError, match=r"regression intercept on constructed: 3 prompts are too few.*needs no regression"
    ):
        fit_final_layer(tiny, task, name="tiny", command="", settings=both)
    small_fit(tiny, task)


def test_both_sources_of_the_intercept_are_tried(tiny: LoadedModel):
    settings = replace(SMALL, sources=("regression", "mean"), self_only_attention=(0.0,))
    result = fit_final_layer(tiny, task_answered_by(tiny, 0.0, -4.0), name="tiny", command="", settings=settings)
    at = {m.candidate.source: m.dev.nll for m in result.grid if m.candidate.intercept_scale == -4.0}
    assert at["regression"] != at["mean"]
    assert result.r2 is not None
    assert result.r2 < 1


def test_predictions_behind_a_gate_are_those_of_the_whole_model_with_the_gate(tiny: LoadedModel):
    task = task_answered_by(tiny, 1.0, 4.0, count=100)
    own = build_profile(tiny, self_only_attention=1.0, intercept_scale=4.0)
    windows = text_windows(tiny, "Some text that is long enough to be sure of some of it, and not of the rest.")
    with TokenPredictor(tiny) as predictor, TextPredictor(tiny) as text_predictor:

        def known(steering: Steering) -> CandidatePredictions:
            scores = text_predictor.token_scores(windows, steering)
            dev = Answers.of(task.dev, predictor.answers_at(task.dev, TEMPERATURES, steering))
            return CandidatePredictions(dev, {}, {"text": scores})

        plain = known(UNSTEERED)
        gate = Gate(low=0.0, high=round(float(np.median(plain.dev.confidence)), 3))
        final = own.final_layer.model_copy(update={"gate": gate})
        steered, gated = known(steer(own)), known(steer(own.model_copy(update={"final_layer": final})))
    found = steered.behind(gate, plain)
    np.testing.assert_allclose(found.dev.log_probability, gated.dev.log_probability, rtol=1e-12)
    assert (found.dev.correct == gated.dev.correct).all()
    assert found.nll_increase(plain) == pytest.approx(gated.nll_increase(plain), rel=1e-9)
    for other in (plain, steered):
        assert found.dev.score.nll != other.dev.score.nll
        assert found.nll_increase(plain) != other.nll_increase(plain)


@cache
def fit_with_gates(family: str) -> tuple[LoadedModel, Task, FinalLayerResult, float]:
    """Fit a task in which self-only attention helps only the half of the prompts with the lower plain confidence.

    Also return the median confidence.
    """
    loaded = build_model(family)
    task = task_answered_by(loaded, 1.0, count=400)
    with TokenPredictor(loaded) as predictor:
        plain, sure = predictor.answers(task.dev), predictor.predict(task.dev)
    middle = float(np.median([answer.confidence for answer in plain]))
    dev = [  # above the median the plain prediction is the answer
        replace(example, answer=token) if answer.confidence > middle else example
        for example, answer, token in zip(task.dev, plain, sure, strict=True)
    ]
    task = replace(task, dev=tuple(dev), fit_formats={})
    settings = replace(SMALL, lambdas=(0.0,), gates=True)
    return loaded, task, fit_final_layer(loaded, task, name="tiny", command="", settings=settings), middle


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gate_is_chosen_if_steering_helps_only_at_low_confidence(family: str):
    _, _, result, middle = fit_with_gates(family)
    gate = result.profile.final_layer.gate
    assert gate is not None
    assert gate.low <= middle
    assert abs(gate.high - middle) <= 0.1
    chosen = result.chosen
    assert chosen.dev.nll == pytest.approx(result.dev.profile.all_prompts.balanced_nll, rel=1e-9)
    assert chosen.dev.nll < min(m.dev.nll for m in result.grid if m.candidate.gate is None)
    assert result.profile.provenance is not None
    assert result.profile.provenance.chosen["gate"] == str(gate)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_settings_without_the_gate_are_measured_on_test_and_held_out_text(family: str):
    """Compare with new predictors, without and with the gate of the fitted profile."""
    loaded, task, result, _ = fit_with_gates(family)
    profile = result.profile
    ungated = profile.model_copy(update={"final_layer": profile.final_layer.model_copy(update={"gate": None})})
    assert result.without_gate is not None
    with TokenPredictor(loaded) as predictor:
        plain = predictor.answers(task.test)
        assert result.without_gate.test == calibrate_arm(predictor.answers(task.test, steer(ungated)), plain)
        assert result.test.profile == calibrate_arm(predictor.answers(task.test, steer(profile)), plain)
    assert result.without_gate.test != result.test.profile
    assert result.without_gate.side_effects == held_out.measure_side_effects(loaded, steer(ungated))
    assert result.side_effects == held_out.measure_side_effects(loaded, steer(profile))
    assert result.side_effects != result.without_gate.side_effects


def test_a_choice_without_a_gate_has_no_ungated_results(tiny: LoadedModel):
    assert small_fit(tiny, task_answered_by(tiny, 1.0)).without_gate is None
