"""Quantised models are loaded, steered exactly and projected, or refused with the reason."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from steering_profiles.errors import ExportError, ModelLoadError
from steering_profiles.export import export_lora, export_weights
from steering_profiles.fit_settings import KINDS
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.models import LoadedModel, assemble, method_of, weights_digest
from steering_profiles.models.projections import effective_weight, is_dense
from steering_profiles.models.quantised import differentiable
from steering_profiles.steering import Steering, attach
from tests.builders import build_profile, every_effect, steer
from tests.fitting.test_gradient import EXAMPLES
from tests.library.changes import (
    eager,
    forward_hook,
    intercept_of,
    logits_under_self_only_mask,
    scale_head_weights,
    scale_neuron_weights,
)
from tests.library.running import TOKENS, logits, steered_logits, with_changed_weights
from tests.quantised import METHODS, ROUND_THEIR_INPUTS, load, rewrite_config, save_plain, save_quantised

HEADS = [(0, 1, 3.0), (1, 0, 0.0), (2, 3, -2.0)]
NEURONS = [(0, 5, 4.0), (1, 0, 0.0), (2, 39, -3.0)]
FLOAT32 = {"atol": 2e-4, "rtol": 2e-4}
"""For float32 sums of other order; the logits have a standard deviation of 2."""
SHARE = 0.05
"""Largest root mean square of rounding to 8 bits or bfloat16, as a share of that deviation."""
ROUND = (*ROUND_THEIR_INPUTS, "bitsandbytes-nf4")
"""Methods whose results for one token differ from those for many: rounded inputs, or 4-bit weights in bfloat16."""
CASES = [
    *(("llama", method) for method in METHODS),
    *((case, method) for case in ("qwen2", "phi3") for method in ("bitsandbytes-nf4", "torchao-int8")),
]
Folders = dict[tuple[str, str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A saved checkpoint of each family and method."""
    root = tmp_path_factory.mktemp("quantised")
    return {(case, method): save_quantised(case, method, root / f"{case}-{method}") for case, method in CASES}


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def model(case: tuple[str, str], folders: Folders) -> LoadedModel:
    """The model of each checkpoint."""
    return load(folders[case])


@pytest.fixture(params=[case for case in CASES if case[1] not in ROUND_THEIR_INPUTS], ids="-".join)
def linear(request: pytest.FixtureRequest, folders: Folders) -> Iterator[LoadedModel]:
    """The same, of those methods whose products are linear maps, by float32 kernels."""
    loaded = load(folders[request.param])
    with differentiable(loaded.model):
        yield loaded


class Scaled(nn.Module):
    """A projection of scaled inputs."""

    def __init__(self, projection: nn.Module, factors: Tensor) -> None:
        super().__init__()
        self.projection, self.factors = projection, factors

    def forward(self, inputs: Tensor) -> Tensor:
        return self.projection(inputs * self.factors)


def dense(loaded: LoadedModel) -> LoadedModel:
    """A stock model with the matrices that the quantised one computes with, each asked of its module."""
    config = loaded.model.config.__class__.from_dict(
        {name: value for name, value in loaded.model.config.to_dict().items() if name != "quantization_config"}
    )
    stock = AutoModelForCausalLM.from_config(config, dtype=loaded.dtype).eval()
    kept = loaded.model.state_dict()
    plain = {name: value for name, value in kept.items() if type(value) is Tensor and value.is_floating_point()}
    stock.load_state_dict({name: plain[name] for name in stock.state_dict() if name in plain}, strict=False)
    with torch.no_grad():
        for name, module in stock.named_modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(effective_weight(loaded.model.get_submodule(name), loaded.dtype).T)
    return assemble(loaded.name, stock, loaded.tokenizer)


def test_a_quantised_checkpoint_has_the_sizes_of_the_plain_one(
    model: LoadedModel, case: tuple[str, str], tmp_path: Path
):
    plain = load(save_plain(case[0], tmp_path / "plain"))
    assert model.anatomy.sizes == plain.anatomy.sizes
    assert model.identity.fingerprint == plain.identity.fingerprint
    assert is_dense(model.anatomy.unembedding)


@torch.no_grad()
def test_the_dequantised_weight_is_the_one_that_a_module_computes_with(linear: LoadedModel):
    for module in (
        linear.anatomy.layers[1].head_output,
        linear.anatomy.neuron_output(1),
        linear.anatomy.layers[1].values,
    ):
        weight = effective_weight(module, linear.dtype)
        inputs = torch.randn(5, weight.shape[0], generator=torch.Generator().manual_seed(0))
        bias = module.bias if isinstance(module.bias, Tensor) else 0
        torch.testing.assert_close(inputs @ weight + bias, module(inputs), **FLOAT32)


def test_scaling_heads_and_neurons_is_scaling_the_inputs_of_the_projection_bit_for_bit(model: LoadedModel):
    plain = logits(model)
    steered = steered_logits(model, steer(build_profile(model, heads=HEADS, neurons=NEURONS)))
    size, family = model.anatomy.sizes.head_dim, model.anatomy.family
    for layer in range(3):
        block = model.anatomy.layers[layer].block
        for path, width, scales in ((family.head_output, size, HEADS), (family.neuron_output, 1, NEURONS)):
            module = block.get_submodule(path)
            factors = torch.ones(module.in_features)
            for at, index, scale in scales:
                factors[index * width : (index + 1) * width] = scale if at == layer else factors[index * width]
            block.set_submodule(path, Scaled(module, factors))
    expected = logits(model)
    assert not torch.allclose(expected, plain, atol=0.1)
    assert torch.equal(steered, expected)


def test_scaling_heads_and_neurons_is_scaling_columns_of_the_dequantised_weights(linear: LoadedModel):
    reference = dense(linear)
    torch.testing.assert_close(logits(linear), logits(reference), **FLOAT32)
    with torch.no_grad():
        scale_head_weights(reference, HEADS)
        scale_neuron_weights(reference, NEURONS)
    steered = steered_logits(linear, steer(build_profile(linear, heads=HEADS, neurons=NEURONS)))
    torch.testing.assert_close(steered, logits(reference), **FLOAT32)


def test_self_only_attention_is_a_mask_on_the_final_layer(linear: LoadedModel):
    eager(linear)
    expected = logits_under_self_only_mask(linear, 0.7)
    assert not torch.allclose(expected, logits(linear), atol=0.01)
    actual = steered_logits(linear, steer(build_profile(linear, self_only_attention=1.0), strength=0.7))
    torch.testing.assert_close(actual, expected, **FLOAT32)


def test_subtracting_the_intercept_is_subtracting_it_from_the_output_of_the_final_mlp(model: LoadedModel):
    profile = build_profile(model, intercept_scale=0.7)
    steered = steered_logits(model, steer(profile))
    with forward_hook(model.anatomy.final_layer.mlp, lambda output: output - intercept_of(profile).to(output)):
        expected = logits(model)
    assert not torch.allclose(expected, logits(model), atol=0.01)
    torch.testing.assert_close(steered, expected, **FLOAT32)


def test_strength_zero_is_bit_identical_to_the_plain_model(model: LoadedModel):
    heads = build_profile(model, heads=HEADS, neurons=NEURONS, self_only_attention=1.0, intercept_scale=0.7)
    assert torch.equal(steered_logits(model, steer(heads, strength=0.0)), logits(model))


def test_cached_decoding_equals_the_full_forward_under_every_effect(model: LoadedModel, case: tuple[str, str]):
    steerings = list(every_effect(model).values())
    full, decoded = steered_logits(model, *steerings), decoded_token_by_token(model, steerings)
    if case[1] in ROUND:
        assert share_of(decoded - full, full) < SHARE
    else:
        torch.testing.assert_close(decoded, full, **FLOAT32)


def share_of(difference: Tensor, values: Tensor) -> float:
    return float(difference.square().mean().sqrt() / values.std())


@torch.no_grad()
def decoded_token_by_token(loaded: LoadedModel, steerings: list[Steering]) -> Tensor:
    handle, cache, steps = attach(loaded), DynamicCache(config=loaded.model.config), []
    for token in TOKENS[0]:
        with handle.applied(steerings):
            tokens = token.expand(len(steerings), 1)
            steps.append(loaded.model(input_ids=tokens, past_key_values=cache, use_cache=True).logits)
    handle.remove()
    return torch.cat(steps, dim=1)


def test_a_mixed_batch_equals_the_single_runs_which_differ(model: LoadedModel, case: tuple[str, str]):
    arms = every_effect(model)
    single = torch.cat([steered_logits(model, steering) for steering in arms.values()])
    for row, name in enumerate(arms):
        assert name == "plain" or not torch.allclose(single[row], single[0], atol=0.1), name
    mixed = steered_logits(model, *arms.values())
    if case[1] in ROUND_THEIR_INPUTS:  # so that the last bit of an input may decide, or (bitsandbytes) the whole batch
        assert share_of(mixed - single, single) < SHARE
    else:
        torch.testing.assert_close(mixed, single, **FLOAT32)


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
def test_the_4_bit_kernel_agrees_with_the_differentiable_one(family: str, folders: Folders):
    loaded = load(folders[family, "bitsandbytes-nf4"])
    packed = logits(loaded)
    with differentiable(loaded.model):
        unpacked = logits(loaded)
    assert share_of(packed - unpacked, unpacked) < SHARE
    assert torch.equal(logits(loaded), packed)


def test_a_fit_reads_the_weights_that_the_model_computes_with(model: LoadedModel):
    reference = dense(model).anatomy
    for layer in range(3):
        for read in ("head_output_weight", "neuron_output_weight"):
            own, stock = (getattr(anatomy, read)(layer) for anatomy in (model.anatomy, reference))
            torch.testing.assert_close(own, stock)
    torch.testing.assert_close(model.anatomy.unembedding_weight(), reference.unembedding_weight())


def test_a_fit_has_the_gradients_of_the_dequantised_model(linear: LoadedModel):
    with DifferentiableScales(linear, KINDS) as scales:
        slope = scales.of_answers(EXAMPLES, {})
    with DifferentiableScales(dense(linear), KINDS) as scales:
        expected = scales.of_answers(EXAMPLES, {})
    assert slope.loss == pytest.approx(expected.loss, rel=1e-4)
    for kind in KINDS:
        assert bool(expected.by_kind[kind].any())
        torch.testing.assert_close(slope.by_kind[kind], expected.by_kind[kind], atol=1e-3, rtol=1e-3)


def test_other_weights_have_another_digest(model: LoadedModel, tmp_path: Path):
    digest = weights_digest(model.model)
    assert digest == weights_digest(model.model)
    changed = with_changed_weights(model, lambda copy: copy.anatomy.unembedding.weight.mul_(2))
    assert weights_digest(changed.model) != digest


@pytest.mark.parametrize("export", [export_weights, export_lora])
def test_the_error_of_an_export_names_the_quantisation_method(
    model: LoadedModel, case: tuple[str, str], export, tmp_path: Path
):
    profile = build_profile(model, heads=HEADS)
    if case[1] == "fp8":
        assert export(model, profile, tmp_path / "out").is_dir()
        return
    method = method_of(model.model.config)
    assert case[1].startswith(str(method))
    with pytest.raises(ExportError, match=rf"is quantised \(method {method}\).*export from the unquantised checkpoint"):
        export(model, profile, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dtype_other_than_the_checkpoints_is_refused(folders: Folders):
    assert load(folders["llama", "torchao-int8"], dtype="float32").dtype == torch.float32
    with pytest.raises(ModelLoadError, match="dtype is bfloat16; allowed for its quantised weights: float32 or auto"):
        load(folders["llama", "torchao-int8"], dtype="bfloat16")


MISSING = {
    "bitsandbytes": "pip install bitsandbytes",
    "torchao": "pip install torchao",
    "gptq": "pip install gptqmodel optimum",
    "awq": "pip install gptqmodel",
    "compressed-tensors": "pip install compressed-tensors",
    "quanto": "pip install optimum-quanto",
    "hqq": "pip install hqq",
}


@pytest.mark.parametrize("method", MISSING)
def test_a_missing_library_is_an_error_of_one_line_with_the_command_that_installs_it(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(tmp_path, {"quant_method": method}, rf"method {method}\).*{MISSING[method]}$")


@pytest.mark.parametrize("method", ["eetq", "higgs", "spqr", "vptq"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_method_that_needs_a_gpu_is_an_error_of_one_line(method: str, tmp_path: Path):
    refused(tmp_path, {"quant_method": method}, rf"method {method}\).*needs a GPU, and there is none here")


def test_settings_unknown_to_every_library_are_an_error_of_one_line(tmp_path: Path):
    refused(tmp_path / "new", {"quant_method": "of-tomorrow"}, "Unknown quantization type, got of-tomorrow")
    refused(tmp_path / "nameless", {"bits": 4}, "method unknown")


def refused(folder: Path, settings: dict[str, object], match: str) -> None:
    save_plain("llama", folder)
    rewrite_config(folder, quantization_config=settings)
    (folder / "model.safetensors").unlink()  # found out before the weights are read
    with pytest.raises(ModelLoadError, match=match) as raised:
        load(folder)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"cannot load model {str(folder)!r}: it is quantised")
