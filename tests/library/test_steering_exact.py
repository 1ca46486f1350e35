"""Steering is exact: every effect equals the same change made to the weights, or to the attention mask."""

from pathlib import Path

import pytest
import torch

from steering_profiles.errors import StrengthError
from steering_profiles.models import LoadedModel
from steering_profiles.steering import ProfileAtStrength, Steering, effect_of
from steering_profiles.store import load_profile, save_profile
from tests.builders import FAMILIES, build_model, build_profile, every_effect, steer
from tests.library.changes import (
    add_to_final_bias,
    eager,
    intercept_of,
    logits_under_self_only_mask,
    scale_head_weights,
    scale_neuron_weights,
)
from tests.library.running import ROUND_OFF, logits, steered_logits, with_changed_weights

STRENGTHS = [-1.0, 0.3, 1.0, 2.5]


@pytest.mark.parametrize("strength", STRENGTHS)
def test_scaling_heads_is_scaling_their_rows_of_the_output_projection(tiny: LoadedModel, strength: float):
    scales = [(0, 1, 3.0), (1, 0, 0.0), (2, 3, -2.0)]
    changed = with_changed_weights(tiny, lambda model: scale_head_weights(model, scales, strength))
    expected = logits(changed)
    assert not torch.allclose(expected, logits(tiny))
    actual = steered_logits(tiny, steer(build_profile(tiny, heads=scales), strength=strength))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_scaling_neurons_is_scaling_their_rows_of_the_down_projection(tiny: LoadedModel, strength: float):
    scales = [(0, 5, 4.0), (1, 0, 0.0), (2, 39, -3.0)]
    changed = with_changed_weights(tiny, lambda model: scale_neuron_weights(model, scales, strength))
    expected = logits(changed)
    assert not torch.allclose(expected, logits(tiny))
    actual = steered_logits(tiny, steer(build_profile(tiny, neurons=scales), strength=strength))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("scale", [0.7, -0.25])
def test_subtracting_the_intercept_is_changing_the_bias_of_the_final_mlp(
    tiny: LoadedModel, scale: float, strength: float
):
    profile = build_profile(tiny, intercept_scale=scale)
    changed = with_changed_weights(tiny, lambda model: add_to_final_bias(model, -strength * intercept_of(profile)))
    expected = logits(changed)
    assert not torch.allclose(expected, logits(tiny))
    torch.testing.assert_close(steered_logits(tiny, steer(profile, strength=strength)), expected, **ROUND_OFF)


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_self_only_attention_is_a_mask_on_the_final_layer(family: str, strength: float):
    tiny = eager(build_model(family))
    expected = logits_under_self_only_mask(tiny, strength)
    assert not torch.allclose(expected, logits(tiny))
    actual = steered_logits(tiny, steer(build_profile(tiny, self_only_attention=1.0), strength=strength))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_the_final_layer_is_scaled_after_its_attention_is_replaced(family: str):
    tiny = eager(build_model(family))
    scales = [(2, 1, 3.0), (2, 2, -0.5)]
    changed = with_changed_weights(tiny, lambda model: scale_head_weights(model, scales))
    expected = logits_under_self_only_mask(changed, 0.3)
    actual = steered_logits(tiny, steer(build_profile(tiny, heads=scales, self_only_attention=0.3)))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


def test_self_only_attention_is_clipped_to_the_range_from_0_to_1(tiny: LoadedModel):
    profile = build_profile(tiny, self_only_attention=0.8)
    beyond, whole, below = (steer(profile, strength=s) for s in (7.0, 1.25, -2.0))
    assert not torch.equal(steered_logits(tiny, whole), logits(tiny))
    assert torch.equal(steered_logits(tiny, beyond), steered_logits(tiny, whole))
    assert torch.equal(steered_logits(tiny, below), logits(tiny))


def test_composed_profiles_are_changes_of_the_weights_one_after_another(tiny: LoadedModel):
    one = build_profile(tiny, "one", heads=[(0, 1, 3.0)], neurons=[(1, 4, 2.0)], intercept_scale=0.5, seed=1)
    two = build_profile(tiny, "two", heads=[(0, 1, 2.0), (1, 1, 5.0)], intercept_scale=-0.2, seed=2)

    def change(model: LoadedModel) -> None:
        scale_head_weights(model, [(0, 1, 3.0)], 0.5)
        scale_neuron_weights(model, [(1, 4, 2.0)], 0.5)
        scale_head_weights(model, [(0, 1, 2.0), (1, 1, 5.0)], 2.0)
        add_to_final_bias(model, -0.5 * intercept_of(one) - 2.0 * intercept_of(two))

    expected = logits(with_changed_weights(tiny, change))
    actual = steered_logits(tiny, Steering((ProfileAtStrength(one, 0.5), ProfileAtStrength(two, 2.0))))
    torch.testing.assert_close(actual, expected, **ROUND_OFF)


def test_the_strongest_of_several_self_only_masks_applies(tiny: LoadedModel):
    weak, strong = (build_profile(tiny, name, self_only_attention=w) for name, w in (("weak", 0.4), ("strong", 0.9)))
    both = steered_logits(tiny, steer(weak, strong))
    assert torch.equal(both, steered_logits(tiny, steer(strong)))
    assert not torch.equal(both, steered_logits(tiny, steer(weak)))


def test_layers_whose_scales_cancel_out_have_no_hooks(tiny: LoadedModel):
    doubled, halved = (build_profile(tiny, name, heads=[(1, 2, by)]) for name, by in (("double", 2.0), ("half", 0.5)))
    assert effect_of(steer(doubled, halved), tiny.anatomy.sizes).heads == {}
    assert torch.equal(steered_logits(tiny, steer(doubled, halved)), logits(tiny))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_strength_zero_is_bit_identical_to_the_plain_model(family: str, dtype: torch.dtype):
    loaded = build_model(family, dtype=dtype)
    plain = logits(loaded)
    for name, steering in every_effect(loaded).items():
        at_zero = Steering(tuple(ProfileAtStrength(applied.profile, 0.0) for applied in steering))
        assert torch.equal(steered_logits(loaded, at_zero), plain), name


def test_a_profile_read_from_disk_steers_like_the_one_that_was_written(tiny: LoadedModel, tmp_path: Path):
    profile = build_profile(
        tiny, heads=[(0, 1, 3.0)], neurons=[(1, 2, 0.1)], self_only_attention=0.6, intercept_scale=0.7, seed=3
    )
    read = load_profile(save_profile(profile, tmp_path))
    assert torch.equal(steered_logits(tiny, steer(read)), steered_logits(tiny, steer(profile)))


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), float("-inf"), 10.5, -11.0])
def test_a_strength_out_of_range_is_refused(tiny: LoadedModel, strength: float):
    with pytest.raises(StrengthError, match=rf"strength is {strength}; allowed: finite numbers in -10\.\.10"):
        ProfileAtStrength(build_profile(tiny), strength)
