"""Steering is exact: every effect equals the same change made to the weights, or computed by hand."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from steering_profiles.errors import HookError, StrengthError
from steering_profiles.models import LoadedModel, assemble
from steering_profiles.models.anatomy import input_major
from steering_profiles.schema import INTERCEPT_TENSOR
from steering_profiles.steering import AppliedProfile, Steering, attach, effect_of
from tests.builders import FAMILIES, build_model, build_profile, every_effect, steer

TOKENS = torch.tensor([[72, 69, 76, 76, 79, 12, 86, 79, 82, 76, 68]])
ROUND_OFF = {"atol": 1e-11, "rtol": 1e-11}


@torch.no_grad()
def logits(loaded: LoadedModel, tokens: Tensor = TOKENS) -> Tensor:
    return loaded.model(input_ids=tokens, use_cache=False).logits


def steered_logits(loaded: LoadedModel, *steerings: Steering, tokens: Tensor = TOKENS) -> Tensor:
    handle = attach(loaded)
    try:
        with handle.applied(steerings):
            return logits(loaded, tokens.expand(len(steerings), -1))
    finally:
        handle.remove()


def with_changed_weights(loaded: LoadedModel, change: Callable[[LoadedModel], None]) -> LoadedModel:
    changed = assemble(loaded.name, copy.deepcopy(loaded.model), loaded.tokenizer)
    with torch.no_grad():
        change(changed)
    return changed


@pytest.mark.parametrize("strength", [-1.0, 0.3, 1.0, 2.5])
def test_scaling_a_head_is_scaling_its_rows_of_the_output_projection(tiny: LoadedModel, strength: float):
    scales = [(0, 1, 3.0), (1, 0, 0.0), (2, 3, -2.0)]
    size = tiny.anatomy.sizes.head_dim

    def change(model: LoadedModel) -> None:
        for layer, head, scale in scales:
            rows = slice(head * size, (head + 1) * size)
            input_major(model.anatomy.layers[layer].head_output)[rows] *= 1 + strength * (scale - 1)

    expected = logits(with_changed_weights(tiny, change))
    assert not torch.allclose(expected, logits(tiny))
    actual = steered_logits(tiny, steer(build_profile(tiny, heads=scales), strength=strength))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


@pytest.mark.parametrize("strength", [-1.0, 0.3, 1.0, 2.5])
def test_scaling_a_neuron_is_scaling_its_row_of_the_down_projection(tiny: LoadedModel, strength: float):
    scales = [(0, 5, 4.0), (1, 0, 0.0), (2, 39, -3.0)]

    def change(model: LoadedModel) -> None:
        for layer, neuron, scale in scales:
            input_major(model.anatomy.layers[layer].neuron_output)[neuron] *= 1 + strength * (scale - 1)

    expected = logits(with_changed_weights(tiny, change))
    assert not torch.allclose(expected, logits(tiny))
    actual = steered_logits(tiny, steer(build_profile(tiny, neurons=scales), strength=strength))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_own_position_attention_is_a_mask_on_the_final_layer(family: str, strength: float):
    """The oracle lets the stock attention run under a mask that leaves each position only itself."""
    tiny = build_model(family)
    tiny.model.set_attn_implementation("eager")
    with own_position_mask(tiny) as masked_attention:
        masked = logits(tiny)
    with mixed_attention(tiny, masked_attention[0], strength):
        expected = logits(tiny)
    if strength == 1.0:
        torch.testing.assert_close(expected, masked, **ROUND_OFF)
    assert not torch.allclose(expected, logits(tiny))
    actual = steered_logits(tiny, steer(build_profile(tiny, own_attention=1.0), strength=strength))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


@contextmanager
def own_position_mask(loaded: LoadedModel) -> Iterator[list[Tensor]]:
    """Mask the final layer so that each position attends to itself only; collects the attention's output."""
    length = TOKENS.shape[1]
    mask = torch.full((length, length), float("-inf"), dtype=loaded.dtype).fill_diagonal_(0.0)
    outputs: list[Tensor] = []

    def set_mask(module, args, kwargs):
        return args, kwargs | {"attention_mask": mask[None, None]}

    final = loaded.anatomy.final_layer
    attention = final.block.get_submodule(loaded.anatomy.family.head_output.rpartition(".")[0])
    handles = [
        attention.register_forward_pre_hook(set_mask, with_kwargs=True),
        final.head_output.register_forward_hook(lambda module, args, output: outputs.append(output)),
    ]
    yield outputs
    for handle in handles:
        handle.remove()


@contextmanager
def mixed_attention(loaded: LoadedModel, masked: Tensor, share: float) -> Iterator[None]:
    """Replace a share of the final layer's attention output by the masked one."""
    handle = loaded.anatomy.final_layer.head_output.register_forward_hook(
        lambda module, args, output: (1 - share) * output + share * masked
    )
    yield
    handle.remove()


@pytest.mark.parametrize("scale", [0.7, -0.25])
def test_subtracting_the_intercept_is_changing_the_bias_of_what_the_final_mlp_adds(tiny: LoadedModel, scale: float):
    profile = build_profile(tiny, intercept_scale=scale)
    b = torch.from_numpy(profile.tensors[INTERCEPT_TENSOR]).double()
    handle = tiny.anatomy.final_layer.mlp.register_forward_hook(lambda module, args, output: output - 2.0 * scale * b)
    expected = logits(tiny)
    handle.remove()
    assert not torch.allclose(expected, logits(tiny))
    torch.testing.assert_close(steered_logits(tiny, steer(profile, strength=2.0)), expected, **ROUND_OFF)


def test_own_position_attention_never_goes_beyond_whole_or_below_none(tiny: LoadedModel):
    profile = build_profile(tiny, own_attention=1.0)
    beyond, whole, below = (steer(profile, strength=s) for s in (7.0, 1.0, -2.0))
    assert torch.equal(steered_logits(tiny, beyond), steered_logits(tiny, whole))
    assert torch.equal(steered_logits(tiny, below), logits(tiny))


def test_profiles_compose_scales_multiply_intercepts_add_the_strongest_mask_holds(tiny: LoadedModel):
    one = build_profile(tiny, "one", heads=[(0, 1, 3.0)], own_attention=0.4, intercept_scale=0.5)
    two = build_profile(tiny, "two", heads=[(0, 1, 2.0), (1, 1, 5.0)], own_attention=0.9, intercept_scale=-0.2)
    both = effect_of(steer(one, two), tiny.anatomy.sizes)
    assert both.heads[0].tolist() == [1, 6, 1, 1]
    assert both.heads[1].tolist() == [1, 5, 1, 1]
    assert both.own_attention == 0.9
    expected = 0.5 * one.tensors[INTERCEPT_TENSOR].astype(float) - 0.2 * two.tensors[INTERCEPT_TENSOR].astype(float)
    torch.testing.assert_close(both.intercept, torch.from_numpy(expected))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_strength_zero_is_bit_identical_to_the_plain_model(family: str, dtype: torch.dtype):
    loaded = build_model(family, dtype=dtype)
    plain = logits(loaded)
    for name, steering in every_effect(loaded).items():
        at_zero = tuple(AppliedProfile(applied.profile, 0.0) for applied in steering)
        assert torch.equal(steered_logits(loaded, at_zero), plain), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_unsteered_row_is_bit_identical_whatever_its_neighbours_are_steered_by(family: str, dtype: torch.dtype):
    loaded = build_model(family, dtype=dtype)
    effects = every_effect(loaded)
    plain_batch = logits(loaded, TOKENS.expand(len(effects), -1))
    mixed = steered_logits(loaded, *effects.values())
    assert torch.equal(mixed[0], plain_batch[0])


def test_a_mixed_batch_equals_the_single_runs_which_differ(tiny: LoadedModel):
    effects = every_effect(tiny)
    single = {name: steered_logits(tiny, steering)[0] for name, steering in effects.items()}
    names = list(single)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert not torch.allclose(single[name], single[other], atol=1e-3), f"{name} does what {other} does"
    mixed = steered_logits(tiny, *effects.values())
    for row, name in enumerate(names):
        torch.testing.assert_close(mixed[row], single[name], **ROUND_OFF, msg=lambda m, name=name: f"{name}: {m}")


def test_a_packed_row_of_tokens_is_steered_token_by_token(tiny: LoadedModel):
    steering = every_effect(tiny)["all"]
    handle = attach(tiny)
    row = handle.acquire(steering)
    with handle.step([row] * TOKENS.shape[1], packed=True):
        packed = logits(tiny)
    handle.remove()
    torch.testing.assert_close(packed, steered_logits(tiny, steering), **ROUND_OFF)


@torch.no_grad()
def test_cached_decoding_equals_the_full_forward_under_every_effect(tiny: LoadedModel):
    effects = every_effect(tiny)
    full = steered_logits(tiny, *effects.values())
    handle = attach(tiny)
    cache, steps = DynamicCache(config=tiny.model.config), []
    for position in range(TOKENS.shape[1]):
        with handle.applied(list(effects.values())):
            token = TOKENS[:, position : position + 1].expand(len(effects), -1)
            steps.append(tiny.model(input_ids=token, past_key_values=cache, use_cache=True).logits)
    handle.remove()
    torch.testing.assert_close(torch.cat(steps, dim=1), full, **ROUND_OFF)


def test_removing_the_hooks_gives_back_the_plain_model(tiny: LoadedModel):
    before = logits(tiny)
    handle = attach(tiny)
    with handle.applied([every_effect(tiny)["all"]]):
        assert not torch.equal(logits(tiny), before)
    handle.remove()
    assert torch.equal(logits(tiny), before)
    assert hooks_on(tiny) == 0


def test_attaching_is_all_or_nothing(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no hooks on this one")

    monkeypatch.setattr(tiny.anatomy.final_layer.mlp, "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hooks on this one"):
        attach(tiny)
    assert hooks_on(tiny) == 0


def test_nothing_is_steered_outside_of_a_step(tiny: LoadedModel):
    before = logits(tiny)
    handle = attach(tiny)
    handle.acquire(every_effect(tiny)["all"])
    assert torch.equal(logits(tiny), before)
    handle.remove()


@pytest.mark.parametrize("effect", ["heads", "neurons", "own attention", "intercept"])
def test_a_hook_that_was_due_and_did_not_fire_is_an_error(tiny: LoadedModel, effect: str):
    handle = attach(tiny)
    with pytest.raises(HookError, match="did not take place"), handle.applied([every_effect(tiny)[effect]]):
        pass  # no forward pass at all
    handle.remove()


def test_an_error_inside_a_step_is_not_hidden_by_the_hooks_that_did_not_fire(tiny: LoadedModel):
    handle = attach(tiny)
    with pytest.raises(ZeroDivisionError), handle.applied([every_effect(tiny)["heads"]]):
        raise ZeroDivisionError
    handle.remove()


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 10.5, -11.0])
def test_a_strength_out_of_range_is_refused(tiny: LoadedModel, strength: float):
    with pytest.raises(StrengthError, match=r"-10\.\.10"):
        AppliedProfile(build_profile(tiny), strength)


def hooks_on(loaded: LoadedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


class TestTable:
    """Rows of the table are shared between equals, freed with their last user, and grow as needed."""

    def rows(self, handle, steerings: Sequence[Steering]) -> list[int]:
        return [handle.acquire(steering) for steering in steerings]

    def test_the_baseline_is_row_zero_and_so_is_strength_zero(self, tiny: LoadedModel):
        handle = attach(tiny)
        assert self.rows(handle, [(), steer(build_profile(tiny, heads=[(0, 0, 2.0)]), strength=0.0)]) == [0, 0]

    def test_the_same_steering_shares_a_row_in_whatever_order_its_profiles_are_named(self, tiny: LoadedModel):
        handle = attach(tiny)
        a, b = (build_profile(tiny, name, heads=[(0, i, 2.0)]) for i, name in enumerate("ab"))
        first, second, stronger = self.rows(handle, [steer(a, b), steer(b, a), steer(a, b, strength=2.0)])
        assert first == second != stronger

    def test_a_row_is_used_again_only_after_its_last_user_is_gone(self, tiny: LoadedModel):
        handle = attach(tiny)
        a, b, c = (steer(build_profile(tiny, name, heads=[(0, i, 2.0)])) for i, name in enumerate("abc"))
        row, again, other = self.rows(handle, [a, a, b])
        handle.release(row)
        assert handle.acquire(c) not in (again, other)
        handle.release(again)
        assert handle.acquire(steer(build_profile(tiny, "d", heads=[(1, 0, 2.0)]))) == again

    def test_a_row_used_again_keeps_nothing_of_its_former_steering(self, tiny: LoadedModel):
        handle = attach(tiny)
        plain = logits(tiny)
        old, new = every_effect(tiny)["all"], steer(build_profile(tiny, "new", heads=[(1, 2, 2.0)]))
        row = handle.acquire(old)
        handle.release(row)
        assert handle.acquire(new) == row
        with handle.step([row]):
            reused = logits(tiny)
        handle.remove()
        assert not torch.equal(reused, plain)
        assert torch.equal(reused, steered_logits(tiny, new))

    def test_many_steerings_at_once_each_keep_their_own_row(self, tiny: LoadedModel):
        many = [steer(build_profile(tiny, f"p{i}", heads=[(i % 3, i % 4, 1.5 + i)])) for i in range(40)]
        together = steered_logits(tiny, *many)
        for row, steering in enumerate(many):
            torch.testing.assert_close(together[row], steered_logits(tiny, steering)[0], **ROUND_OFF)
