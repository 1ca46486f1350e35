"""MLP decomposition: recording the inputs and output of a layer's MLP, and the least-squares fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steering_profiles.errors import FitError, ModelError
from steering_profiles.fitting.decomposition import Decomposition, LayerRecord, decompose, r2, record_layer
from steering_profiles.models import LoadedModel
from steering_profiles.tasks.task import Example

EXAMPLES = [Example("x", "", prompt, 1) for prompt in [(5, 6, 7), (8, 9), (10, 11, 12), (13,), (200, 3)]]


def drawn(seed: int = 0, prompts: int = 12, heads: int = 3, width: int = 5) -> LayerRecord:
    """Return inputs of very different sizes that are not centred, and an unrelated output."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.double, generator=draw)

    sizes = 10.0 ** torch.arange(heads, dtype=torch.double).view(1, heads, 1)
    return LayerRecord(sizes * (normal(prompts, heads, width) + 1), 30 * normal(prompts, width), normal(prompts, width))


def made_of(record: LayerRecord, heads: Tensor, residual_stream: float, intercept: Tensor) -> LayerRecord:
    mlp = torch.einsum("nhd,h->nd", record.heads, heads) + residual_stream * record.residual_stream + intercept
    return replace(record, mlp=mlp)


def part(record: LayerRecord, prompts: slice) -> LayerRecord:
    return LayerRecord(record.heads[prompts], record.residual_stream[prompts], record.mlp[prompts])


# ---- the fit


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 9), st.integers(1, 8))
def test_the_coefficients_that_generated_the_output_are_recovered(seed: int, heads: int, more: int, width: int):
    prompts = 2 * heads + 4 + more  # more values than coefficients even with a hidden size of 1
    record = drawn(seed, prompts, heads, width)
    draw = np.random.default_rng(seed)
    weights, residual_stream = torch.tensor(draw.normal(size=heads)), float(draw.normal())
    intercept = torch.tensor(draw.normal(size=width))
    found = decompose(made_of(record, weights, residual_stream, intercept))
    torch.testing.assert_close(found.heads, weights, rtol=1e-6, atol=1e-6)
    assert found.residual_stream == pytest.approx(residual_stream, rel=1e-6, abs=1e-6)
    scale = float(record.heads.abs().max() + record.residual_stream.abs().max())
    torch.testing.assert_close(found.intercept, intercept, rtol=1e-6, atol=1e-6 * scale)
    assert found.r2 == pytest.approx(1)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3]))
def test_the_fit_is_least_squares_on_the_stacked_centred_values(seed: int, ridge: float):
    record = drawn(seed)
    inputs = torch.cat([record.heads, record.residual_stream.unsqueeze(1)], dim=1).numpy()
    centred = inputs - inputs.mean(axis=0)
    stacked = centred.transpose(0, 2, 1).reshape(-1, inputs.shape[1])
    output = (record.mlp.numpy() - record.mlp.numpy().mean(axis=0)).reshape(-1)
    # Ridge regression is least squares with one more row for each coefficient.
    shrinking = np.diag(np.sqrt(ridge * (stacked**2).sum(axis=0)))
    expected, *_ = np.linalg.lstsq(np.vstack([stacked, shrinking]), np.append(output, np.zeros(len(shrinking))))
    found = decompose(record, ridge=ridge)
    np.testing.assert_allclose([*found.heads, found.residual_stream], expected, rtol=1e-7, atol=1e-10)
    intercept = record.mlp.numpy().mean(axis=0) - np.einsum("nid,i->d", inputs, expected) / len(inputs)
    np.testing.assert_allclose(found.intercept, intercept, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.mean_output, record.mlp.numpy().mean(axis=0))


def test_the_effect_of_a_ridge_does_not_depend_on_the_size_of_an_input():
    record = drawn()
    larger = replace(record, residual_stream=1000 * record.residual_stream)
    one, other = decompose(record, ridge=0.5), decompose(larger, ridge=0.5)
    torch.testing.assert_close(one.heads, other.heads)
    assert one.residual_stream == pytest.approx(1000 * other.residual_stream)


def test_a_constant_part_of_an_input_changes_only_the_intercept():
    record = drawn()
    moved = replace(record, mlp=record.mlp + 7)
    one, other = decompose(record), decompose(moved)
    torch.testing.assert_close(one.heads, other.heads)
    torch.testing.assert_close(one.intercept + 7, other.intercept)


# ---- R2


def test_r2_is_one_minus_residual_over_total_variance():
    record = drawn()
    found = decompose(record)
    residual = record.mlp - found.predict(record)
    explained = 1 - float(residual.var(dim=0).sum() / record.mlp.var(dim=0).sum())
    assert found.r2 == r2(found, record) == pytest.approx(explained)
    assert 0 < found.r2 < 1


def test_out_of_sample_r2_uses_the_mean_of_the_other_prompts():
    record = drawn(prompts=40)
    found, others = decompose(part(record, slice(20))), part(record, slice(20, 40))
    errors = (others.mlp - found.predict(others)).square().sum()
    assert r2(found, others) == pytest.approx(float(1 - errors / (others.mlp - others.mlp.mean(0)).square().sum()))
    assert r2(found, others) < found.r2


def test_the_prediction_follows_the_formula():
    record = drawn(prompts=6)
    found = Decomposition(torch.tensor([1.0, -2.0, 0.5]).double(), 3.0, torch.ones(5).double(), torch.zeros(5), 0.0)
    for prompt, predicted in enumerate(found.predict(record)):
        first, second, third = record.heads[prompt]
        torch.testing.assert_close(predicted, first - 2 * second + 0.5 * third + 3 * record.residual_stream[prompt] + 1)


# ---- degenerate data


def refused(record: LayerRecord, message: str, ridge: float = 0.0) -> None:
    with pytest.raises(FitError, match=message):
        decompose(record, ridge=ridge)


def test_too_few_prompts_are_rejected():
    refused(
        drawn(prompts=4, heads=3),
        "4 prompts are too few to decompose the MLP of a layer with 3 heads; at least 5 are needed",
    )
    assert decompose(drawn(prompts=5, heads=3)).heads.shape == (3,)


def test_constant_inputs_are_rejected_with_and_without_a_ridge():
    record = drawn()
    constant = replace(record, heads=record.heads.index_fill(1, torch.tensor([1]), 0.1))
    for ridge in (0.0, 1.0):
        refused(constant, "inputs that are the same on all 12 prompts: head 1$", ridge)
    refused(replace(record, residual_stream=torch.full((12, 5), 0.3)), "on all 12 prompts: the residual stream$")
    refused(part(record, slice(1)), "too few")


def test_collinear_inputs_are_rejected_by_name_and_fitted_with_a_ridge():
    record = drawn()
    record.heads[:, 2] = 3 * record.heads[:, 0] + 5
    refused(
        record,
        "inputs that are linear combinations of each other on these prompts: head 0, head 2; use a ridge above 0",
    )
    assert decompose(record, ridge=1e-3).heads.isfinite().all()


def test_a_constant_output_is_rejected():
    refused(replace(drawn(), mlp=torch.full((12, 5), 0.7).double()), "output is the same on all 12 prompts")


@pytest.mark.parametrize(
    ("field", "named"),
    [("heads", "the heads"), ("residual_stream", "the residual stream"), ("mlp", "the MLP's output")],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_rejected(field: str, named: str, value: float):
    record = drawn()
    getattr(record, field)[3, ..., 0] = value
    refused(record, f"{named}: values are not finite on 1 of 12 prompts")


@pytest.mark.parametrize("ridge", [-0.1, torch.nan, torch.inf])
def test_a_ridge_that_is_negative_or_not_finite_is_rejected(ridge: float):
    refused(drawn(), f"ridge is {ridge}; allowed: finite numbers from 0", ridge)


# ---- recording a layer


@torch.no_grad()
def streams(loaded: LoadedModel, prompt: tuple[int, ...]) -> Tensor:
    """Return the residual stream before each layer and before the final norm: ``[layers + 1, hidden_size]``."""
    found = []
    handles = [layer.block.register_forward_pre_hook(lambda _, args: found.append(args[0][0, -1])) for layer in
               loaded.anatomy.layers]  # fmt: skip
    handles.append(loaded.anatomy.final_norm.register_forward_pre_hook(lambda _, args: found.append(args[0][0, -1])))
    loaded.model(torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    return torch.stack(found)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_residual_stream_heads_bias_and_mlp_add_up_to_the_residual_stream_after_the_layer(
    tiny: LoadedModel, layer: int
):
    record = record_layer(tiny, EXAMPLES, layer)
    bias = getattr(tiny.anatomy.layers[layer].head_output, "bias", None)
    added = record.heads.sum(dim=1) + (0 if bias is None else bias.detach())
    for index, example in enumerate(EXAMPLES):
        before, after = streams(tiny, example.prompt)[layer : layer + 2]
        torch.testing.assert_close(record.residual_stream[index], before)
        torch.testing.assert_close(record.residual_stream[index] + added[index] + record.mlp[index], after)


def test_contributions_of_heads_are_separate(tiny: LoadedModel):
    module, width = tiny.anatomy.layers[1].head_output, tiny.anatomy.sizes.head_dim
    plain = record_layer(tiny, EXAMPLES, 1)

    def silence(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = args[0].clone()
        z[..., 2 * width : 3 * width] = 0
        return (z,)

    handle = module.register_forward_pre_hook(silence)
    without = record_layer(tiny, EXAMPLES, 1)
    handle.remove()
    assert not without.heads[:, 2].any()
    assert plain.heads[:, 2].any()
    torch.testing.assert_close(without.heads[:, [0, 1, 3]], plain.heads[:, [0, 1, 3]])


def test_hooks_are_removed_even_if_the_model_fails(tiny: LoadedModel):
    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in tiny.model.modules())

    before = hooks()
    record_layer(tiny, EXAMPLES, 1)
    broken = tiny.anatomy.final_norm.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record_layer(tiny, EXAMPLES, 1)
    broken.remove()
    assert hooks() == before


def test_negative_layers_count_from_the_end(tiny: LoadedModel):
    assert torch.equal(record_layer(tiny, EXAMPLES, -1).mlp, record_layer(tiny, EXAMPLES, 2).mlp)


@pytest.mark.parametrize("layer", [-4, 3])
def test_a_layer_out_of_range_is_rejected(tiny: LoadedModel, layer: int):
    with pytest.raises(ModelError, match=rf"layer is {layer}; allowed for tiny-.*: 0\.\.2, or -3\.\.-1 counted from"):
        record_layer(tiny, EXAMPLES, layer)
