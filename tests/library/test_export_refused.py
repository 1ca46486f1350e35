"""Profiles, models and folders with which an export is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steering_profiles.errors import ExportError, ProfileMismatch, StrengthError
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from tests.builders import build_model, build_profile, steer
from tests.library.exporting import HEADS, Export, both_forms, run
from tests.library.running import ROUND_OFF, steered_logits

REFUSED = {
    "self-only attention": (
        lambda model: build_profile(model, heads=HEADS, self_only_attention=0.5),
        1.0,
        ["self-only"],
    ),
    "an intercept": (lambda model: build_profile(model, heads=HEADS, intercept_scale=0.5), 1.0, ["an intercept"]),
    "both": (
        lambda model: build_profile(model, self_only_attention=1.0, intercept_scale=0.5),
        1.0,
        ["self-only attention", "an intercept"],
    ),
    "a gated final layer": (
        lambda model: build_profile(model, heads=HEADS, self_only_attention=1.0, intercept_scale=0.5, gate=(0.1, 0.6)),
        1.0,
        ["self-only attention", "an intercept"],
    ),
    "no change at all": (lambda model: build_profile(model), 1.0, ["changes nothing at strength 1"]),
    "scales of one": (lambda model: build_profile(model, heads=[(0, 0, 1.0)]), 1.0, ["changes nothing"]),
    "no strength": (lambda model: build_profile(model, heads=HEADS), 0.0, ["changes nothing at strength 0"]),
}

# PEFT asks transformers by a name that goes away in transformers 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@both_forms
@pytest.mark.parametrize(("make", "strength", "says"), REFUSED.values(), ids=REFUSED)
def test_effects_that_weights_cannot_carry_are_refused_by_name(
    tiny: LoadedModel, export: Export, make: Callable[[LoadedModel], Profile], strength: float, says: list[str],
    tmp_path: Path,
):  # fmt: skip
    with pytest.raises(ExportError) as caught:
        export(tiny, make(tiny), tmp_path / "out", strength)
    assert "'test'" in str(caught.value)
    assert all(words in str(caught.value) for words in says)
    assert not (tmp_path / "out").exists()


@both_forms
def test_a_final_layer_effect_at_strength_0_is_exported(tiny: LoadedModel, export: Export, tmp_path: Path):
    """Self-only attention is clamped at 0, so a negative strength leaves the scales alone."""
    profile = build_profile(tiny, heads=HEADS, self_only_attention=1.0)
    expected = steered_logits(tiny, steer(profile, strength=-1.0))
    torch.testing.assert_close(run(tiny, export(tiny, profile, tmp_path, -1.0)), expected, **ROUND_OFF)


@both_forms
def test_a_strength_out_of_range_is_refused(tiny: LoadedModel, export: Export, tmp_path: Path):
    with pytest.raises(StrengthError, match="11"):
        export(tiny, build_profile(tiny, heads=HEADS), tmp_path, 11.0)


@both_forms
def test_another_models_profile_is_refused_or_forced_and_then_recorded(export: Export, tmp_path: Path):
    loaded, other = build_model("llama"), build_model("llama", layers=2)
    profile = build_profile(other, heads=[(1, 2, 3.0)])
    with pytest.raises(ProfileMismatch, match="layers is 3 here, 2 in the profile"):
        export(loaded, profile, tmp_path / "out")
    out = export(loaded, profile, tmp_path / "out", force=True)
    torch.testing.assert_close(run(loaded, out), steered_logits(loaded, steer(profile)), **ROUND_OFF)
    assert json.loads((out / "steering.json").read_text())["forced"] == ["layers is 3 here, 2 in the profile"]


@both_forms
@pytest.mark.parametrize("quantise", ["settings", "integers"])
def test_a_quantised_model_is_refused(tiny: LoadedModel, export: Export, quantise: str, tmp_path: Path):
    if quantise == "settings":
        tiny.model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    else:
        weight = torch.ones_like(tiny.anatomy.layers[0].neuron_output.weight, dtype=torch.int8)
        tiny.anatomy.layers[0].neuron_output.weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ExportError, match=r"is quantised.*(gptq|int8)"):
        export(tiny, build_profile(tiny, heads=HEADS), tmp_path)


@both_forms
def test_weights_too_large_for_the_type_are_refused_and_nothing_is_left(export: Export, tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float16)
    with pytest.raises(ExportError, match=r"model\.layers\.1\.mlp\.down_proj: .* too large for float16"):
        export(loaded, build_profile(loaded, neurons=[(1, 2, 1e7)]), tmp_path)
    assert list(tmp_path.iterdir()) == []


@both_forms
@pytest.mark.parametrize("there", ["a file in it", "a file of its name"])
def test_an_export_overwrites_no_files(tiny: LoadedModel, export: Export, there: str, tmp_path: Path):
    out = tmp_path / "out"
    kept = out / "kept.txt" if there == "a file in it" else out
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(ExportError, match=r"not empty|not a folder"):
        export(tiny, build_profile(tiny, heads=HEADS), out)
    assert kept.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
