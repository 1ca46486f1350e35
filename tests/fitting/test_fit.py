"""Fits of component scales, from task to profile."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from steering_profiles.compatibility import check_compatibility
from steering_profiles.errors import TaskError
from steering_profiles.evaluation import TokenPredictor
from steering_profiles.fitting import METHODS, FitCheckpoint, FitResult, FitSettings, StepwiseSettings, fit, fit_key
from steering_profiles.models import LoadedModel
from steering_profiles.steering import ProfileAtStrength, Steering
from steering_profiles.store import SHIPPED, Catalogue, content_hash, load_profile, save_profile
from steering_profiles.tasks import Task, parentheses
from tests.builders import build_model
from tests.short_texts import use_short_texts

STEPWISE = StepwiseSettings(max_steps=6, validation_interval=2, batch_prompts=8)


@pytest.fixture(autouse=True)
def _short_texts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("slow") is None:
        use_short_texts(monkeypatch)


def small_task(loaded: LoadedModel) -> Task:
    task = parentheses(loaded.tokenizer)
    formats = {name: examples[::20] for name, examples in task.fit_formats.items()}
    return replace(task, train=task.train[::40], dev=task.dev[::20], test=task.test[::20], fit_formats=formats)


def small_fit(loaded: LoadedModel, method: str = "stepwise", checkpoint: FitCheckpoint | None = None) -> FitResult:
    settings = FitSettings(method=method, top_k=(0, 2, 5), alphas=(1.2, 1.6), stepwise=STEPWISE)
    return fit(
        loaded, small_task(loaded), name="tiny", command="steer fit here", settings=settings, checkpoint=checkpoint
    )


WITHOUT_PAIRS = [method for method in METHODS if method != "circuit"]  # a random model has no correct answers


@pytest.mark.parametrize("method", WITHOUT_PAIRS)
def test_a_fit_writes_the_same_bytes_every_time(tmp_path, method: str):
    written = []
    for run in ("one", "two"):
        result = small_fit(build_model("llama"), method)
        written.append(save_profile(result.profile, tmp_path / run).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("method", WITHOUT_PAIRS)
def test_a_fitted_profile_has_provenance_and_matches_its_model(tiny: LoadedModel, method: str):
    provenance = (profile := small_fit(tiny, method).profile).provenance
    assert check_compatibility(profile, tiny.identity).matches
    assert provenance is not None
    assert (provenance.task, provenance.seed, provenance.command) == ("parentheses", 0, "steer fit here")
    assert provenance.split_sizes == small_task(tiny).split_sizes
    assert provenance.grid["method"] == method
    assert len(provenance.grid["path" if method == "stepwise" else "points"]) >= 4
    assert set(provenance.test) == {"before", "after"}
    assert {"prose", "code"} <= set(provenance.side_effects)


def test_the_provenance_has_the_accuracy_of_the_profile(tiny: LoadedModel):
    result = small_fit(tiny)
    with TokenPredictor(tiny) as predictor:
        after = predictor.accuracy(small_task(tiny).test, Steering((ProfileAtStrength(result.profile),)))
    assert result.profile.provenance is not None
    assert result.profile.provenance.test["after"] == after.percent


@pytest.mark.parametrize("kinds", [("neuron",), ("head", "neuron")])
def test_neurons_are_ranked_and_scaled_like_heads(tiny: LoadedModel, kinds: tuple[str, ...]):
    settings = FitSettings(method="paper", kinds=kinds, top_k=(4,), alphas=(1.5,))
    result = fit(tiny, small_task(tiny), name="tiny", command="", settings=settings)
    assert {component.kind for component in result.ranking.components} == set(kinds)
    assert result.profile.neurons
    assert len(result.profile.heads) + len(result.profile.neurons) == 4
    assert {scale.scale for scale in result.profile.neurons} == {1.5}


class Interrupted(Exception):
    pass


class InterruptedCheckpoint(FitCheckpoint):
    """Interrupts the fit after ``after`` results."""

    after = 0

    def recall(self, name, make):
        if len(self) >= self.after:
            raise Interrupted
        return super().recall(name, make)


def test_scales_that_differ_slightly_are_measured_separately(tiny: LoadedModel):
    checkpoint = FitCheckpoint()
    alphas = (1.5, 1.50000001)
    settings = FitSettings(method="paper", top_k=(2,), alphas=alphas)
    fit(tiny, small_task(tiny), name="tiny", command="steer fit here", settings=settings, checkpoint=checkpoint)
    assert len(checkpoint) == 1 + len(alphas)


@pytest.mark.parametrize("method", ["stepwise", "paper"])
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_fit_continues_to_the_same_result(tiny: LoadedModel, tmp_path, monkeypatch, method, after):
    whole = small_fit(tiny, method).profile
    path, key = tmp_path / "fit.jsonl", fit_key(tiny, small_task(tiny), FitSettings(method=method))
    interrupted = InterruptedCheckpoint(path, key)
    interrupted.after = after
    with pytest.raises(Interrupted):
        small_fit(tiny, method, interrupted)

    def refuse(*_, **__):
        raise AssertionError("this stage is in the checkpoint")

    monkeypatch.setattr("steering_profiles.fitting.rasteer.rank_components", refuse)
    assert len(checkpoint := FitCheckpoint(path, key)) == after
    assert small_fit(tiny, method, checkpoint).profile == whole


def test_different_fits_have_different_keys(tiny: LoadedModel):
    task = small_task(tiny)
    keys = {
        fit_key(tiny, task, FitSettings()),
        fit_key(tiny, task, FitSettings(method="paper")),
        fit_key(tiny, task, FitSettings(stepwise=STEPWISE)),
        fit_key(tiny, replace(task, dev=task.dev[1:]), FitSettings()),
        fit_key(build_model(tiny.anatomy.family.name, layers=2), task, FitSettings()),
        fit_key(build_model(tiny.anatomy.family.name, seed=1), task, FitSettings()),
    }
    assert len(keys) == 6


def test_the_circuit_baseline_needs_counterfactual_prompts(tiny: LoadedModel):
    with pytest.raises(TaskError, match="no counterfactual prompts"):
        fit(
            tiny,
            replace(small_task(tiny), pairs=()),
            name="tiny",
            command="",
            settings=FitSettings(method="circuit"),
        )


@pytest.fixture
def every_core() -> Iterator[None]:
    """Use all cores, like the commands: rounding in bfloat16 depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("every_core")
def test_the_shipped_profile_raises_four_parentheses_from_0_to_100_percent(embedded: LoadedModel):
    profile = Catalogue.open()["parentheses"].profile
    assert check_compatibility(profile, embedded.identity).matches
    task = parentheses(embedded.tokenizer)
    with TokenPredictor(embedded) as predictor:
        before = predictor.accuracy(task.test).percent
        after = predictor.accuracy(task.test, Steering((ProfileAtStrength(profile),))).percent
    assert before["))))"] <= 2 < 95 <= before[")))"]
    assert after["))))"] == after[")))"] == 100
    fewer = (")", "))")  # where the profile does not take effect
    assert [after[group] for group in fewer] == [before[group] for group in fewer]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_command_in_the_shipped_profile_reproduces_it(embedded: LoadedModel):
    """It does on one thread of a CPU with the instructions of the one that made it; others round otherwise."""
    shipped = load_profile(SHIPPED / "parentheses.json")
    assert shipped.provenance is not None
    settings = FitSettings(stepwise=StepwiseSettings(max_lost=2.0, conditions=True, in_turn=True, margin=2.0))
    task, command = parentheses(embedded.tokenizer), shipped.provenance.command
    again = fit(embedded, task, name="parentheses", command=command, settings=settings)
    assert content_hash(again.profile) == content_hash(shipped)
