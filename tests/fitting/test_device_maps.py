"""Fits, explanations and exports of models whose layers are on disk or on several devices."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from steering_profiles.errors import ExportError
from steering_profiles.evaluation.decoding import GreedyDecoder
from steering_profiles.export import export_lora, export_weights
from steering_profiles.fitting import FitSettings, StepwiseSettings, explain, fit, fit_final_layer
from steering_profiles.fitting.circuit import rank_by_patching
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.fitting.projection import record_activations
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from tests.builders import build_profile, steer
from tests.evaluation.test_decoding import PROMPTS
from tests.fitting.test_explanation import task as things
from tests.fitting.test_families import pairs_that_flip
from tests.fitting.test_final_layer import SMALL, task_answered_by
from tests.fitting.test_fit import small_task
from tests.library.precision import InDouble
from tests.placing import PLACEMENTS, load_placed, save_family
from tests.short_texts import use_short_texts


@pytest.fixture(autouse=True)
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    use_short_texts(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_family("llama", tmp_path / "model")


@pytest.fixture
def whole(folder: Path) -> LoadedModel:
    return load_placed("llama", folder)


@pytest.fixture(params=PLACEMENTS)
def placed(folder: Path, request: pytest.FixtureRequest) -> LoadedModel:
    return load_placed("llama", folder, request.param)


def steerings(loaded: LoadedModel) -> list[Steering]:
    return [UNSTEERED, steer(build_profile(loaded, heads=[(0, 1, 3.0), (1, 0, -1.0)], self_only_attention=1.0))]


def test_a_fit_gives_the_same_ranking_and_steps(whole: LoadedModel, placed: LoadedModel):
    settings = FitSettings(
        kinds=("head", "neuron"), stepwise=StepwiseSettings(max_steps=2, validation_interval=2, batch_prompts=4)
    )
    one, other = (
        fit(loaded, small_task(loaded), name="tiny", command="steer fit", settings=settings)
        for loaded in (whole, placed)
    )
    assert other.ranking.components == one.ranking.components
    assert one.profile.provenance is not None
    assert other.profile.provenance is not None
    path, expected = (each.profile.provenance.grid["path"] for each in (other, one))
    assert len(expected) > 1
    for step, at in zip(path, expected, strict=True):
        assert step == pytest.approx(at)


def test_gradients_are_the_same_after_passes_without_gradients(whole: LoadedModel, placed: LoadedModel):
    examples, at = small_task(whole).train[:8], {Component("head", 0, 1): 1.5, Component("neuron", 2, 3): -2.0}
    slopes = []
    for loaded in (whole, placed):
        record_activations(loaded, examples)
        for _ in range(2):
            with DifferentiableScales(loaded, ("head", "neuron")) as scales:
                slopes.append(scales.of_answers(examples, at).by_kind)
    assert slopes[0]["neuron"].count_nonzero() > 0
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0], atol=1e-6, rtol=1e-6)


def test_a_final_layer_fit_gives_the_same_result(whole: LoadedModel, placed: LoadedModel):
    one, other = (
        fit_final_layer(loaded, task_answered_by(whole, own=0.5, scale=4.0), name="tiny", command="", settings=SMALL)
        for loaded in (whole, placed)
    )
    assert one.profile.final_layer.self_only_attention > 0
    assert other.profile.final_layer == one.profile.final_layer


def test_an_explanation_is_the_same(whole: LoadedModel, placed: LoadedModel):
    one, other = (explain(loaded, things(), 1, ridge=0.2) for loaded in (whole, placed))
    torch.testing.assert_close(other.decomposition.heads, one.decomposition.heads)
    assert other.r2 == pytest.approx(one.r2)


def test_patching_gives_the_same_ranking(whole: LoadedModel, placed: LoadedModel):
    pairs = pairs_that_flip(whole)
    assert rank_by_patching(placed, pairs) == rank_by_patching(whole, pairs)


def test_a_padded_batch_gets_the_same_completions(whole: LoadedModel, placed: LoadedModel):
    texts = []
    for loaded in (whole, placed):
        arms = steerings(loaded) * len(PROMPTS)
        prompts = [prompt for prompt in PROMPTS for _ in steerings(loaded)]
        with InDouble(), GreedyDecoder(loaded) as decoder:
            texts.append(decoder.complete(prompts, arms, 10))
    assert texts[0] == texts[1]


def test_an_adapter_is_exported_wherever_the_weights_are(whole: LoadedModel, placed: LoadedModel, tmp_path: Path):
    one, other = (
        load_file(
            export_lora(loaded, build_profile(loaded, heads=[(0, 1, 3.0)], neurons=[(2, 5, 0.5)]), tmp_path / name)
            / "adapter_model.safetensors"
        )
        for name, loaded in (("one", whole), ("other", placed))
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_folding_weights_that_are_not_all_in_memory_is_rejected(folder: Path, tmp_path: Path):
    loaded = load_placed("llama", folder, "split")
    with pytest.raises(ExportError, match=r"accelerate has offloaded model\.layers\.0.* export the profile as lora"):
        export_weights(loaded, build_profile(loaded, heads=[(0, 1, 3.0)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
