"""Every architecture family, exactly: what steering does, and what components add to the residual stream."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from steering_profiles.compatibility import require_compatible
from steering_profiles.errors import ModelError, ProfileMismatch
from steering_profiles.evaluation import Window
from steering_profiles.export.folding import scaled_projections
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.fitting.projection import select_neurons
from steering_profiles.models import FAMILIES, LoadedModel, assemble, head_contributions, recorded
from steering_profiles.models.anatomy import Joining
from steering_profiles.models.norms import Norm
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering, attach
from tests.builders import build_profile, every_effect, steer
from tests.families import CASES, DENSE, EXPERTS, WINDOW, build_family
from tests.fitting.test_projection import answer_tokens
from tests.library.changes import (
    add_to_final_bias,
    eager,
    intercept_of,
    logits_under_self_only_mask,
    scale_head_weights,
    scale_neuron_weights,
)
from tests.library.precision import InDouble
from tests.library.running import ROUND_OFF, TOKENS, logits, steered_logits, with_changed_weights

HEADS = [(0, 1, 3.0), (1, 0, 0.0), (2, 3, -2.0)]
NEURONS = [(0, 5, 4.0), (1, 0, 0.0), (2, 39, -3.0)]


@pytest.fixture(autouse=True)
def _in_double() -> Iterator[None]:
    with InDouble():
        yield


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    """A small float64 model of each family."""
    return build_family(request.param)


@pytest.fixture(params=DENSE)
def dense(request: pytest.FixtureRequest) -> LoadedModel:
    """The same, of those families whose neurons can be scaled."""
    return build_family(request.param)


def effects(loaded: LoadedModel) -> dict[str, Steering]:
    """Every effect that the family supports, and all of them together."""
    if loaded.anatomy.neurons_refused is None:
        return every_effect(loaded)
    heads = build_profile(loaded, "heads", heads=HEADS)
    final = build_profile(loaded, "final", self_only_attention=1.0, intercept_scale=0.7)
    return {"plain": UNSTEERED, "heads": steer(heads), "final": steer(final), "all": steer(heads, final)}


def test_every_family_is_tested():
    assert {family for family, _, _ in CASES.values()} == {family.name for family in FAMILIES}


@pytest.mark.parametrize("case", CASES)
def test_a_model_is_recognised_by_its_family(case: str):
    assert build_family(case).anatomy.family.name == CASES[case][0]


def test_windows_are_shorter_than_the_prompt_they_are_tested_on():
    assert TOKENS.shape[1] > WINDOW


def test_scaling_heads_is_scaling_their_columns_of_the_output_projection(model: LoadedModel):
    changed = with_changed_weights(model, lambda copy: scale_head_weights(copy, HEADS))
    expected = logits(changed)
    assert not torch.allclose(expected, logits(model))
    torch.testing.assert_close(steered_logits(model, steer(build_profile(model, heads=HEADS))), expected, **ROUND_OFF)


def test_scaling_neurons_is_scaling_their_columns_of_the_down_projection(dense: LoadedModel):
    changed = with_changed_weights(dense, lambda copy: scale_neuron_weights(copy, NEURONS))
    expected = logits(changed)
    assert not torch.allclose(expected, logits(dense))
    actual = steered_logits(dense, steer(build_profile(dense, neurons=NEURONS)))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


def test_self_only_attention_is_a_mask_on_the_final_layer(model: LoadedModel):
    eager(model)
    expected = logits_under_self_only_mask(model, 0.7)
    assert not torch.allclose(expected, logits(model))
    actual = steered_logits(model, steer(build_profile(model, self_only_attention=1.0), strength=0.7))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


def test_subtracting_the_intercept_is_changing_the_bias_of_the_final_mlp(model: LoadedModel):
    profile = build_profile(model, intercept_scale=0.7)
    expected = logits(with_changed_weights(model, lambda copy: add_to_final_bias(copy, -intercept_of(profile))))
    assert not torch.allclose(expected, logits(model))
    torch.testing.assert_close(steered_logits(model, steer(profile)), expected, **ROUND_OFF)


def every_position(sequences: Tensor) -> Tensor:
    return sequences


@torch.no_grad()
def test_contributions_of_all_components_sum_to_the_final_residual_stream(model: LoadedModel):
    anatomy, ends = model.anatomy, []
    handle = anatomy.final_layer.block.register_forward_hook(lambda module, args, output: ends.append(output))
    with recorded(anatomy, range(anatomy.sizes.layers), every_position) as states:
        logits(model)
    handle.remove()
    residual_stream = states[0].residual_stream  # the embeddings
    for index, layer in enumerate(anatomy.layers):
        state = states[index]
        of_bias = contribution(layer.head_joining, bias_of(layer.head_output), state.head_scale)
        attention = head_contributions(anatomy, index, state).sum(dim=-2) + of_bias
        residual_stream = carried(layer.head_joining, residual_stream, state.head_scale) + attention
        if layer.neuron_output is None:
            mlp = state.mlp
        else:
            neurons = (state.m.unsqueeze(-1) * anatomy.neuron_output_weight(index)).sum(dim=-2) * state.mlp_scale
            mlp = neurons + contribution(layer.mlp_joining, bias_of(layer.neuron_output), state.mlp_scale)
            torch.testing.assert_close(mlp, state.mlp + constant(layer.mlp_joining), **ROUND_OFF)
        residual_stream = carried(layer.mlp_joining, residual_stream, state.mlp_scale) + mlp
    end = ends[0][0] if isinstance(ends[0], tuple) else ends[0]
    torch.testing.assert_close(residual_stream, end, **ROUND_OFF)


def bias_of(projection: torch.nn.Module) -> Tensor:
    bias = projection.bias
    return bias if isinstance(bias, Tensor) else torch.zeros(1, dtype=torch.float64)


def contribution(joining: Joining, bias: Tensor, scale: Tensor) -> Tensor:
    """Return the contribution of a projection's bias, with that of the norm after it."""
    width = joining.norm.hidden_size if joining.norm is not None else bias.shape[-1]
    return joining.fold(bias.expand(width)) * scale + constant(joining)


def constant(joining: Joining) -> Tensor:
    bias = joining.norm.bias if joining.norm is not None else None
    return torch.zeros(1, dtype=torch.float64) if bias is None else bias


def carried(joining: Joining, residual_stream: Tensor, scale: Tensor) -> Tensor:
    """Return the residual stream after the norm, if it passes one."""
    return joining.fold(residual_stream) * scale if joining.on_residual_stream else residual_stream


def test_the_lens_orders_tokens_as_the_model_does(model: LoadedModel):
    """The lens of the last, normed residual stream without the gain is the logits, up to what all tokens share."""
    anatomy = model.anatomy
    kept = []
    module = anatomy.project_out or model.model.get_output_embeddings()
    handle = module.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    got = logits(model)[0, -1]
    handle.remove()
    normed = kept[0][0, -1]
    if anatomy.final_norm is not None:
        normed = (
            normed / Norm(anatomy.final_norm, anatomy.family.norm, anatomy.sizes.hidden_size).gain
        )  # which the lens has
    bias = getattr(model.model.get_output_embeddings(), "bias", None)
    lens = normed @ anatomy.unembedding_weight() + (0 if bias is None else bias)
    assert lens.argsort().tolist() == got.argsort().tolist()


def test_cached_decoding_equals_the_full_forward_under_every_effect(model: LoadedModel):
    steerings = list(effects(model).values())
    torch.testing.assert_close(decoded_token_by_token(model, steerings), steered_logits(model, *steerings), **ROUND_OFF)


@torch.no_grad()
def decoded_token_by_token(loaded: LoadedModel, steerings: list[Steering]) -> Tensor:
    handle, cache, steps = attach(loaded), DynamicCache(config=loaded.model.config), []
    for token in TOKENS[0]:
        with handle.applied(steerings):
            tokens = token.expand(len(steerings), 1).to(loaded.input_device)
            steps.append(loaded.model(input_ids=tokens, past_key_values=cache, use_cache=True).logits)
    handle.remove()
    return torch.cat(steps, dim=1)


@torch.no_grad()
def test_self_only_attention_ignores_the_final_layers_kv_cache(model: LoadedModel):
    """All that this layer has stored is made no numbers before every token; without such attention that shows."""
    wholly = build_profile(model, heads=[(0, 2, 2.0), (2, 1, 3.0)], self_only_attention=1.0, intercept_scale=0.7)
    steerings = [steer(wholly), steer(build_profile(model, self_only_attention=0.5), strength=2.0), UNSTEERED]
    handle, cache, steps = attach(model), DynamicCache(config=model.model.config), []
    for token in TOKENS[0]:
        with handle.applied(steerings):
            steps.append(model.model(token.expand(3, 1), past_key_values=cache, use_cache=True).logits)
        cache.layers[-1].keys.fill_(torch.nan)
        cache.layers[-1].values.fill_(torch.nan)
    handle.remove()
    decoded = torch.cat(steps, dim=1)
    torch.testing.assert_close(decoded[:2], steered_logits(model, *steerings[:2]), **ROUND_OFF)
    assert decoded[2, 1:].isnan().all()


def test_a_mixed_batch_equals_the_single_runs_which_differ(model: LoadedModel):
    arms = effects(model)
    single = {name: steered_logits(model, steering)[0] for name, steering in arms.items()}
    names = list(single)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert not torch.allclose(single[name], single[other], atol=1e-3), f"{name} does what {other} does"
    mixed = steered_logits(model, *arms.values())
    for row, name in enumerate(names):
        torch.testing.assert_close(mixed[row], single[name], **ROUND_OFF, msg=lambda m, name=name: f"{name}: {m}")


def test_strength_zero_is_bit_identical_to_the_plain_model(model: LoadedModel):
    plain = logits(model)
    for name, steering in effects(model).items():
        at_zero = Steering(tuple(ProfileAtStrength(applied.profile, 0.0) for applied in steering))
        assert torch.equal(steered_logits(model, at_zero), plain), name


def test_the_gradient_of_a_loss_by_a_scale_is_that_of_finite_differences(model: LoadedModel):
    kind = "head" if model.anatomy.neurons_refused else "neuron"
    window, moved, step = Window(tuple(TOKENS[0].tolist()), 4), Component(kind, 1, 2), 1e-5
    with DifferentiableScales(model, (kind,)) as scales:
        slope = scales.of_texts([window], {}).by_kind[kind][1, 2]
        up, down = (scales.of_texts([window], {moved: 1 + by}).loss for by in (step, -step))
    assert float(slope) == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-8)
    assert slope != 0


def test_exported_tensors_have_the_names_of_their_modules(dense: LoadedModel):
    profile = build_profile(dense, heads=HEADS, neurons=NEURONS)
    projections = scaled_projections(dense, ProfileAtStrength(profile))
    assert len(projections) == len(HEADS) + len(NEURONS)
    assert all(dense.model.get_submodule(each.path) is each.module for each in projections)


@pytest.mark.parametrize("case", EXPERTS)
def test_neurons_in_experts_are_refused_with_the_reason(case: str):
    experts = build_family(case)
    profile = build_profile(experts, neurons=[(0, 1, 2.0)])
    with pytest.raises(ProfileMismatch, match=r"cannot be scaled: .* keeps its neurons in experts"):
        require_compatible(profile, experts.identity, experts.anatomy.refuses(profile), force=True)
    with pytest.raises(ModelError, match=r"neurons cannot be scaled: .* keeps its neurons in experts"):
        steered_logits(experts, steer(profile))
    with pytest.raises(ModelError, match="neurons cannot be scaled"):
        select_neurons(experts, answer_tokens())
    with pytest.raises(ModelError, match="neurons cannot be scaled"), DifferentiableScales(experts, ("neuron",)):
        pass


def test_a_soft_cap_of_attention_scores_is_never_left_out():
    loaded = build_family("gemma2")
    loaded.model.set_attn_implementation("eager")
    expected = logits(loaded)
    loaded.model.config._attn_implementation = "sdpa"  # set in the config: newer versions of transformers refuse it
    again = assemble(loaded.name, loaded.model, loaded.tokenizer)
    assert torch.equal(logits(again), expected)
