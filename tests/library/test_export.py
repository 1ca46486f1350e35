"""What is exported computes what the hooks compute, loaded by transformers and PEFT with nothing of ours."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from steering_profiles.errors import ExportError, ProfileMismatch, StrengthError
from steering_profiles.export import export_lora, export_weights
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.projections import input_major
from steering_profiles.schema import Profile
from steering_profiles.store import content_hash
from tests.builders import FAMILIES, build_model, build_profile, steer
from tests.families import CASES, DENSE, build_family
from tests.library.running import ROUND_OFF, TOKENS, hooks_on, logits, steered_logits

HEADS = [(0, 1, 3.0), (1, 0, 0.0), (1, 2, 1.7), (2, 3, -2.0)]
NEURONS = [(0, 5, 4.0), (1, 7, 0.0), (2, 39, -3.0)]
CHANGES = {"heads": {"heads": HEADS}, "neurons": {"neurons": NEURONS}, "both": {"heads": HEADS, "neurons": NEURONS}}
STRENGTHS = [-1.0, 0.5, 1.0, 2.0]
EXPORTS = {"weights": export_weights, "lora": export_lora}
Export = Callable[..., Path]

# PEFT asks transformers by a name that goes away in transformers 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

both_forms = pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
every_change = pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)


@torch.no_grad()
def outputs(model: PreTrainedModel | PeftModel) -> Tensor:
    result: Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return result


def checkpoint(folder: Path, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """An exported checkpoint, as anyone loads one."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, experts_implementation="eager")
    return model.eval()


def adapted(loaded: LoadedModel, folder: Path) -> PeftModel:
    """An exported adapter on a copy of the plain model, as anyone loads one."""
    return PeftModel.from_pretrained(copy.deepcopy(loaded.model), folder).eval()


def run(loaded: LoadedModel, folder: Path) -> Tensor:
    """The logits of what was exported to ``folder``, whichever form it has."""
    is_adapter = (folder / "adapter_config.json").exists()
    return outputs(adapted(loaded, folder) if is_adapter else checkpoint(folder, loaded.dtype))


def settings_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return content


def layer_of(path: str) -> int:
    return next(int(part) for part in path.split(".") if part.isdigit())


@both_forms
@every_change
@pytest.mark.parametrize("strength", STRENGTHS)
def test_it_computes_what_the_hooks_compute(
    tiny: LoadedModel, export: Export, changes: dict, strength: float, tmp_path: Path
):
    profile = build_profile(tiny, **changes)
    expected = steered_logits(tiny, steer(profile, strength=strength))
    assert not torch.allclose(expected, logits(tiny), atol=1e-3)
    out = export(tiny, profile, tmp_path / "out", strength)
    torch.testing.assert_close(run(tiny, out), expected, **ROUND_OFF)


@both_forms
@pytest.mark.parametrize("family", FAMILIES)
def test_in_half_precision_it_does_so_to_rounding(family: str, export: Export, tmp_path: Path):
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
def test_the_model_that_was_loaded_stays_as_it_was_bit_for_bit(tiny: LoadedModel, export: Export, tmp_path: Path):
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
def test_a_record_beside_it_says_what_it_carries(tiny: LoadedModel, export: Export, tmp_path: Path):
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
def test_who_may_read_other_new_files_may_read_it(tiny: LoadedModel, export: Export, tmp_path: Path):
    """A server often runs as another user than the one who exports."""
    (tmp_path / "other").touch()
    out = export(tiny, build_profile(tiny, heads=HEADS), tmp_path / "out")
    assert {path.stat().st_mode for path in out.iterdir()} == {(tmp_path / "other").stat().st_mode}


# --- weights


def test_of_the_checkpoint_only_the_scaled_columns_differ(tiny: LoadedModel, tmp_path: Path):
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


def test_the_checkpoint_is_a_whole_one(tiny: LoadedModel, tmp_path: Path):
    export_weights(tiny, build_profile(tiny, heads=HEADS), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    text = "f(x)) naïve 漢字"
    assert AutoTokenizer.from_pretrained(tmp_path).encode(text) == tiny.tokenizer.encode(text)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [tiny.identity.architecture]
    assert config["dtype"] == "float64"


def test_a_checkpoint_that_cannot_be_saved_leaves_no_folder_and_the_model_as_it_was(tiny: LoadedModel, tmp_path: Path):
    tiny.model.generation_config.temperature = -1.0
    config, plain = tiny.model.config.to_dict(), logits(tiny)
    with pytest.raises(ExportError, match="temperature"):
        export_weights(tiny, build_profile(tiny, heads=HEADS), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert tiny.model.config.to_dict() == config
    assert torch.equal(logits(tiny), plain)


# --- LoRA


def test_without_the_adapter_the_model_is_the_plain_one_exactly(tiny: LoadedModel, tmp_path: Path):
    model = adapted(tiny, export_lora(tiny, build_profile(tiny, **CHANGES["both"]), tmp_path))
    assert not torch.allclose(outputs(model), logits(tiny))
    with model.disable_adapter():
        assert torch.equal(outputs(model), logits(tiny))


@both_forms
@pytest.mark.parametrize("case", CASES)
def test_a_profile_of_every_family_computes_what_the_hooks_compute(case: str, export: Export, tmp_path: Path):
    loaded = build_family(case)
    profile = build_profile(loaded, heads=HEADS, neurons=NEURONS if case in DENSE else [])
    expected = steered_logits(loaded, steer(profile))
    assert not torch.allclose(expected, logits(loaded), atol=1e-3)
    actual = run(loaded, export(loaded, profile, tmp_path / "out"))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)  # GPT-J attends in float32


def test_merged_by_peft_it_is_the_checkpoint(tiny: LoadedModel, tmp_path: Path):
    profile = build_profile(tiny, **CHANGES["both"])
    merged = adapted(tiny, export_lora(tiny, profile, tmp_path / "lora")).merge_and_unload()
    folded = checkpoint(export_weights(tiny, profile, tmp_path / "weights"))
    for name, weight in folded.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], weight, **ROUND_OFF)


def test_several_adapters_on_one_model_are_chosen_from_by_name(tiny: LoadedModel, tmp_path: Path):
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
def test_all_modules_have_one_rank_the_largest_that_any_needs(
    tiny: LoadedModel, changes: dict, rank: Callable[[int], int], tmp_path: Path
):
    export_lora(tiny, build_profile(tiny, **changes), tmp_path)
    config, expected = settings_of(tmp_path), rank(tiny.anatomy.sizes.head_dim)
    assert ranks(tmp_path) == {expected}
    assert config["r"] == config["lora_alpha"] == expected
    assert not [name for name in config if "pattern" in name]


@every_rank
def test_padded_it_computes_what_the_hooks_compute(tiny: LoadedModel, changes: dict, rank: Callable, tmp_path: Path):
    profile = build_profile(tiny, **changes)
    expected = steered_logits(tiny, steer(profile))
    assert not torch.allclose(expected, logits(tiny), atol=1e-3)
    torch.testing.assert_close(run(tiny, export_lora(tiny, profile, tmp_path)), expected, **ROUND_OFF)


@every_rank
def test_a_server_that_looks_at_alpha_and_the_tensors_alone_computes_the_same(
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
def test_so_many_modules_that_peft_shortens_their_names_are_still_told_apart(family: str, tmp_path: Path):
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
def test_any_scales_give_an_adapter_that_is_the_change_of_the_weights(
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


# --- refused


REFUSED = {
    "self-only attention": (
        lambda model: build_profile(model, heads=HEADS, self_only_attention=0.5),
        1.0,
        ["self-only"],
    ),
    "an intercept": (lambda model: build_profile(model, heads=HEADS, intercept_scale=0.5), 1.0, ["the intercept"]),
    "both": (
        lambda model: build_profile(model, self_only_attention=1.0, intercept_scale=0.5),
        1.0,
        ["self-only attention", "the intercept"],
    ),
    "a gated final layer": (
        lambda model: build_profile(model, heads=HEADS, self_only_attention=1.0, intercept_scale=0.5, gate=(0.1, 0.6)),
        1.0,
        ["self-only attention", "the intercept"],
    ),
    "no change at all": (lambda model: build_profile(model), 1.0, ["changes nothing at strength 1"]),
    "scales of one": (lambda model: build_profile(model, heads=[(0, 0, 1.0)]), 1.0, ["changes nothing"]),
    "no strength": (lambda model: build_profile(model, heads=HEADS), 0.0, ["changes nothing at strength 0"]),
}


@both_forms
@pytest.mark.parametrize(("make", "strength", "says"), REFUSED.values(), ids=REFUSED)
def test_what_weights_cannot_carry_is_refused_and_named(
    tiny: LoadedModel, export: Export, make: Callable[[LoadedModel], Profile], strength: float, says: list[str],
    tmp_path: Path,
):  # fmt: skip
    with pytest.raises(ExportError) as caught:
        export(tiny, make(tiny), tmp_path / "out", strength)
    assert "'test'" in str(caught.value)
    assert all(words in str(caught.value) for words in says)
    assert not (tmp_path / "out").exists()


@both_forms
def test_a_final_layer_effect_that_the_strength_turns_off_is_no_obstacle(
    tiny: LoadedModel, export: Export, tmp_path: Path
):
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


def test_a_model_that_is_not_whole_in_memory_is_refused_as_weights(offloaded: LoadedModel, tmp_path: Path):
    with pytest.raises(ExportError, match="not whole in memory"):
        export_weights(offloaded, build_profile(offloaded, heads=HEADS), tmp_path / "out")


def test_a_model_that_is_not_whole_in_memory_gives_the_adapter_that_it_gives_in_memory(
    offloaded: LoadedModel, tmp_path: Path
):
    whole = build_model("llama", dtype=torch.float32)
    for loaded, name in ((offloaded, "offloaded"), (whole, "whole")):
        export_lora(loaded, build_profile(loaded, **CHANGES["both"]), tmp_path / name)
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("offloaded", "whole"))
    assert one == other


@both_forms
def test_weights_that_the_type_cannot_hold_are_refused_and_nothing_is_left(export: Export, tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float16)
    with pytest.raises(ExportError, match=r"model\.layers\.1\.mlp\.down_proj: .* too large for float16"):
        export(loaded, build_profile(loaded, neurons=[(1, 2, 1e7)]), tmp_path)
    assert list(tmp_path.iterdir()) == []


@both_forms
@pytest.mark.parametrize("there", ["a file in it", "a file of its name"])
def test_nothing_is_overwritten(tiny: LoadedModel, export: Export, there: str, tmp_path: Path):
    out = tmp_path / "out"
    kept = out / "kept.txt" if there == "a file in it" else out
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(ExportError, match=r"not empty|not a folder"):
        export(tiny, build_profile(tiny, heads=HEADS), out)
    assert kept.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
