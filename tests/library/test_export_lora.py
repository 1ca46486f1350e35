"""LoRA adapters: equal to the hooks, one rank for all modules, and the same change as the exported weights."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from steering_profiles.export import export_lora, export_weights
from steering_profiles.models import LoadedModel
from steering_profiles.models.projections import input_major
from tests.builders import FAMILIES, build_model, build_profile, steer
from tests.library.exporting import CHANGES, HEADS, adapted, checkpoint, layer_of, outputs, run, settings_of
from tests.library.running import ROUND_OFF, logits, steered_logits

# PEFT asks transformers by a name that goes away in transformers 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_a_disabled_adapter_leaves_the_plain_model_exactly(tiny: LoadedModel, tmp_path: Path):
    model = adapted(tiny, export_lora(tiny, build_profile(tiny, **CHANGES["both"]), tmp_path))
    assert not torch.allclose(outputs(model), logits(tiny))
    with model.disable_adapter():
        assert torch.equal(outputs(model), logits(tiny))


def test_an_adapter_merged_by_peft_is_the_exported_checkpoint(tiny: LoadedModel, tmp_path: Path):
    profile = build_profile(tiny, **CHANGES["both"])
    merged = adapted(tiny, export_lora(tiny, profile, tmp_path / "lora")).merge_and_unload()
    folded = checkpoint(export_weights(tiny, profile, tmp_path / "weights"))
    for name, weight in folded.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], weight, **ROUND_OFF)


def test_one_of_several_adapters_is_selected_by_name(tiny: LoadedModel, tmp_path: Path):
    profiles = {name: build_profile(tiny, name, **CHANGES[name]) for name in ("heads", "neurons")}
    model = adapted(tiny, export_lora(tiny, profiles["heads"], tmp_path / "heads"))
    model.load_adapter(str(export_lora(tiny, profiles["neurons"], tmp_path / "neurons")), "neurons")
    for adapter, name in (("default", "heads"), ("neurons", "neurons")):
        model.set_adapter(adapter)
        torch.testing.assert_close(outputs(model), steered_logits(tiny, steer(profiles[name])), **ROUND_OFF)


def ranks(folder: Path) -> set[int]:
    tensors = load_file(folder / "adapter_model.safetensors")
    return {tensor.shape["lora_B" in name] for name, tensor in tensors.items()}


RANKS = {  # of what scales: with head_dim, the largest number of inputs that one layer has scaled
    "heads": ({"heads": [(0, 1, 3.0), (0, 3, 2.0), (2, 0, 2.0)]}, lambda size: 2 * size),
    "neurons": ({"neurons": [(0, 1, 3.0), (2, 5, 2.0), (2, 6, 2.0), (2, 7, -1.0)]}, lambda size: 3),
    "few heads, more neurons": (
        {"heads": [(0, 1, 3.0)], "neurons": [(1, neuron, 1.5) for neuron in range(40)] + [(2, 3, 2.0)]},
        lambda size: 40,
    ),
    "more heads, few neurons": (
        {"heads": [(0, head, 1.5) for head in range(4)] + [(1, 2, 3.0)], "neurons": [(0, 1, 3.0)]},
        lambda size: 4 * size,
    ),
    "scales of one": ({"heads": [(0, 1, 3.0), (0, 2, 1.0), (1, 0, 1.0)]}, lambda size: size),
}
every_rank = pytest.mark.parametrize(("changes", "rank"), RANKS.values(), ids=RANKS)


@every_rank
def test_all_modules_have_the_largest_rank_that_any_needs(
    tiny: LoadedModel, changes: dict, rank: Callable[[int], int], tmp_path: Path
):
    export_lora(tiny, build_profile(tiny, **changes), tmp_path)
    config, expected = settings_of(tmp_path), rank(tiny.anatomy.sizes.head_dim)
    assert ranks(tmp_path) == {expected}
    assert config["r"] == config["lora_alpha"] == expected
    assert not [name for name in config if "pattern" in name]


@every_rank
def test_a_padded_adapter_computes_what_the_hooks_compute(
    tiny: LoadedModel, changes: dict, rank: Callable, tmp_path: Path
):
    profile = build_profile(tiny, **changes)
    expected = steered_logits(tiny, steer(profile))
    assert not torch.allclose(expected, logits(tiny), atol=1e-3)
    torch.testing.assert_close(run(tiny, export_lora(tiny, profile, tmp_path)), expected, **ROUND_OFF)


@every_rank
def test_a_server_that_reads_only_alpha_and_the_tensors_computes_the_same(
    tiny: LoadedModel, changes: dict, rank: Callable, tmp_path: Path
):
    """As llama.cpp does, which takes the rank of each module from its tensors."""
    profile = build_profile(tiny, **changes)
    export_lora(tiny, profile, tmp_path)
    tensors, alpha = load_file(tmp_path / "adapter_model.safetensors"), settings_of(tmp_path)["lora_alpha"]
    changed = copy.deepcopy(tiny)
    with torch.no_grad():
        for name, a in tensors.items():
            module, is_a, _ = name.removeprefix("base_model.model.").partition(".lora_A.")
            if is_a:
                b = tensors[name.replace(".lora_A.", ".lora_B.")]
                weight = input_major(changed.model.get_submodule(module))
                weight += (alpha / a.shape[0]) * (b @ a).T
    torch.testing.assert_close(logits(changed), steered_logits(tiny, steer(profile)), **ROUND_OFF)


def test_a_module_whose_scales_are_all_one_is_left_out(tiny: LoadedModel, tmp_path: Path):
    export_lora(tiny, build_profile(tiny, heads=[(0, 1, 3.0), (0, 2, 1.0), (1, 0, 1.0)]), tmp_path)
    assert [layer_of(path) for path in settings_of(tmp_path)["target_modules"]] == [0]


def test_peft_knows_every_setting_that_is_written(tiny: LoadedModel, tmp_path: Path):
    export_lora(tiny, build_profile(tiny, heads=HEADS), tmp_path)
    written = settings_of(tmp_path)
    read = LoraConfig.from_pretrained(str(tmp_path)).to_dict()
    assert {name: read[name] for name in written} | {"target_modules": sorted(read["target_modules"])} == written
    assert written["base_model_name_or_path"] == tiny.name
    assert written["fan_in_fan_out"] == (tiny.anatomy.family.name == "gpt2")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("scaled", "other"), [(1, 11), (11, 1)])
def test_layer_1_and_layer_11_are_not_taken_for_each_other(family: str, scaled: int, other: int, tmp_path: Path):
    loaded = build_model(family, layers=12)
    alone = build_profile(loaded, heads=[(scaled, 1, 3.0)], neurons=[(scaled, 4, 3.0)])
    model = adapted(loaded, export_lora(loaded, alone, tmp_path / "alone"))
    wrapped = {layer_of(name) for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert wrapped == {scaled}

    scales = [(scaled, 1, 3.0), (other, 0, 2.0), (other, 2, -1.0)]  # ranks that differ, so that a mix-up cannot load
    pair = build_profile(loaded, heads=scales)
    expected = steered_logits(loaded, steer(pair))
    assert not torch.allclose(expected, logits(loaded), atol=1e-3)
    torch.testing.assert_close(run(loaded, export_lora(loaded, pair, tmp_path / "pair")), expected, **ROUND_OFF)


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_are_told_apart_if_peft_shortens_their_names(family: str, tmp_path: Path):
    loaded = build_model(family, layers=12)
    profile = build_profile(
        loaded,
        heads=[(layer, head, 1.2) for layer in range(12) for head in range(1 + layer % 3)],
        neurons=[(layer, 3, 1.5) for layer in range(12) if layer != 6],
    )
    model = adapted(loaded, export_lora(loaded, profile, tmp_path))
    wrapped = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert len(wrapped) == 23
    torch.testing.assert_close(outputs(model), steered_logits(loaded, steer(profile)), **ROUND_OFF)


MODELS = {family: build_model(family) for family in FAMILIES}
SCALES = st.floats(-100, 100, allow_nan=False)


@settings(max_examples=20)
@given(
    st.sampled_from(FAMILIES),
    st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 3)), SCALES),
    st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 39)), SCALES, min_size=1),
)
def test_the_adapter_of_any_scales_is_the_change_of_the_weights(
    family: str, heads: dict[tuple[int, int], float], neurons: dict[tuple[int, int], float]
):
    loaded = MODELS[family]
    heads, neurons = ({key: scale + (scale == 1) for key, scale in scales.items()} for scales in (heads, neurons))
    profile = build_profile(
        loaded, heads=[(*key, scale) for key, scale in heads.items()], neurons=[(*k, s) for k, s in neurons.items()]
    )
    with tempfile.TemporaryDirectory() as folder:
        folded = load_file(export_weights(loaded, profile, Path(folder, "weights")) / "model.safetensors")
        tensors = load_file(export_lora(loaded, profile, Path(folder, "lora")) / "adapter_model.safetensors")
        paths = settings_of(Path(folder, "lora"))["target_modules"]
    for path in paths:
        a, b = (tensors[f"base_model.model.{path}.lora_{side}.weight"] for side in "AB")
        stored = f"{path}.weight"
        change = folded[stored] - loaded.model.state_dict()[stored]
        torch.testing.assert_close(b @ a, change if family == "llama" else change.T, atol=1e-10, rtol=1e-10)
