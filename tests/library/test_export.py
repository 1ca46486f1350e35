"""Exports, loaded by transformers and PEFT alone, compute the same as the hooks."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from steering_profiles.errors import ExportError
from steering_profiles.export import export_lora, export_weights
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.projections import input_major
from steering_profiles.store import content_hash
from tests.builders import FAMILIES, build_model, build_profile, steer
from tests.families import CASES, DENSE, build_family
from tests.library.exporting import (
    CHANGES,
    HEADS,
    NEURONS,
    STRENGTHS,
    Export,
    both_forms,
    checkpoint,
    every_change,
    run,
)
from tests.library.running import ROUND_OFF, hooks_on, logits, steered_logits

# PEFT asks transformers by a name that goes away in transformers 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@both_forms
@every_change
@pytest.mark.parametrize("strength", STRENGTHS)
def test_an_export_computes_what_the_hooks_compute(
    tiny: LoadedModel, export: Export, changes: dict, strength: float, tmp_path: Path
):
    profile = build_profile(tiny, **changes)
    expected = steered_logits(tiny, steer(profile, strength=strength))
    assert not torch.allclose(expected, logits(tiny), atol=1e-3)
    out = export(tiny, profile, tmp_path / "out", strength)
    torch.testing.assert_close(run(tiny, out), expected, **ROUND_OFF)


@both_forms
@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_in_half_precision_is_equal_up_to_rounding(family: str, export: Export, tmp_path: Path):
    loaded = build_model(family, dtype=torch.bfloat16)
    profile = build_profile(loaded, **CHANGES["both"])
    exact = build_model(family)
    with torch.no_grad():  # the same weights, rounded, in the oracle
        for name, parameter in exact.model.named_parameters():
            parameter.copy_(loaded.model.get_parameter(name))
    expected = steered_logits(exact, steer(profile))
    effect = (expected - logits(exact)).abs().max()
    hooks = (steered_logits(loaded, steer(profile)) - expected).abs().max()
    exported = (run(loaded, export(loaded, profile, tmp_path)) - expected).abs().max()
    assert exported < 0.1 * effect
    assert exported < 2 * hooks


@both_forms
def test_an_export_leaves_the_loaded_model_unchanged_bit_for_bit(tiny: LoadedModel, export: Export, tmp_path: Path):
    before, config, plain = copy.deepcopy(tiny.model.state_dict()), tiny.model.config.to_dict(), logits(tiny)
    generation = tiny.model.generation_config.to_dict()
    export(tiny, build_profile(tiny, **CHANGES["both"]), tmp_path)
    after = tiny.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert tiny.model.config.to_dict() == config
    assert tiny.model.generation_config.to_dict() == generation
    assert hooks_on(tiny) == 0
    assert torch.equal(logits(tiny), plain)


@both_forms
def test_the_same_profile_gives_the_same_bytes(tiny: LoadedModel, export: Export, tmp_path: Path):
    profile = build_profile(tiny, **CHANGES["both"])
    one, other = (export(tiny, profile, tmp_path / name) for name in ("one", "other"))
    files = sorted(path.name for path in one.iterdir())
    assert files == sorted(path.name for path in other.iterdir())
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@both_forms
def test_a_record_beside_the_export_names_profile_and_strength(tiny: LoadedModel, export: Export, tmp_path: Path):
    profile = build_profile(tiny, heads=HEADS)
    export(tiny, profile, tmp_path, 0.5)
    assert json.loads((tmp_path / "steering.json").read_text()) == {
        "profile": "test",
        "content_hash": content_hash(profile),
        "strength": 0.5,
        "changes": "4 heads x -2..3",
        "base_model": tiny.name,
        "exported_as": "weights" if export is export_weights else "lora",
        "forced": [],
    }


@both_forms
def test_an_export_has_the_permissions_of_other_new_files(tiny: LoadedModel, export: Export, tmp_path: Path):
    """A server often runs as another user than the one who exports."""
    (tmp_path / "other").touch()
    out = export(tiny, build_profile(tiny, heads=HEADS), tmp_path / "out")
    assert {path.stat().st_mode for path in out.iterdir()} == {(tmp_path / "other").stat().st_mode}


# --- weights


def test_only_the_scaled_columns_of_the_checkpoint_differ(tiny: LoadedModel, tmp_path: Path):
    export_weights(tiny, build_profile(tiny, heads=[(1, 2, 3.0)], neurons=[(0, 5, 4.0)]), tmp_path)
    folded = checkpoint(tmp_path)
    plain, after = tiny.model.state_dict(), folded.state_dict()
    family, size = tiny.anatomy.family, tiny.anatomy.sizes.head_dim
    scaled = {
        f"{family.blocks}.1.{family.head_output}": set(range(2 * size, 3 * size)),
        f"{family.blocks}.0.{family.neuron_output}": {5},
    }
    assert {name for name in plain if not torch.equal(plain[name], after[name])} == {
        f"{path}.weight" for path in scaled
    }
    for path, inputs in scaled.items():
        before, now = (input_major(model.get_submodule(path)) for model in (tiny.model, folded))
        assert {int(index) for index in (before != now).any(dim=-1).nonzero()} == inputs


def test_the_checkpoint_has_config_tokenizer_and_weights(tiny: LoadedModel, tmp_path: Path):
    export_weights(tiny, build_profile(tiny, heads=HEADS), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    text = "f(x)) naïve 漢字"
    assert AutoTokenizer.from_pretrained(tmp_path).encode(text) == tiny.tokenizer.encode(text)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [tiny.identity.architecture]
    assert config["dtype"] == "float64"


def test_a_failed_export_leaves_no_folder_and_the_model_unchanged(tiny: LoadedModel, tmp_path: Path):
    tiny.model.generation_config.temperature = -1.0
    config, plain = tiny.model.config.to_dict(), logits(tiny)
    with pytest.raises(ExportError, match="temperature"):
        export_weights(tiny, build_profile(tiny, heads=HEADS), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert tiny.model.config.to_dict() == config
    assert torch.equal(logits(tiny), plain)


# --- LoRA


@both_forms
@pytest.mark.parametrize("case", CASES)
def test_a_profile_of_every_family_computes_what_the_hooks_compute(case: str, export: Export, tmp_path: Path):
    loaded = build_family(case)
    profile = build_profile(loaded, heads=HEADS, neurons=NEURONS if case in DENSE else [])
    expected = steered_logits(loaded, steer(profile))
    assert not torch.allclose(expected, logits(loaded), atol=1e-3)
    actual = run(loaded, export(loaded, profile, tmp_path / "out"))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)  # GPT-J attends in float32


@pytest.fixture
def offloaded(tmp_path: Path) -> LoadedModel:
    """A model whose weights accelerate reads from disk when they are used."""
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    return load_model(
        ModelSource(
            model=str(tmp_path / "model"),
            dtype="float32",
            device_map="auto",
            max_memory={"cpu": "1KB"},
            cache=tmp_path / "cache",
        )
    )


def test_weights_of_a_model_that_is_partly_on_disk_are_not_exported(offloaded: LoadedModel, tmp_path: Path):
    with pytest.raises(ExportError, match="not whole in memory"):
        export_weights(offloaded, build_profile(offloaded, heads=HEADS), tmp_path / "out")


def test_a_model_that_is_partly_on_disk_gives_the_same_adapter(offloaded: LoadedModel, tmp_path: Path):
    whole = build_model("llama", dtype=torch.float32)
    for loaded, name in ((offloaded, "offloaded"), (whole, "whole")):
        export_lora(loaded, build_profile(loaded, **CHANGES["both"]), tmp_path / name)
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("offloaded", "whole"))
    assert one == other
