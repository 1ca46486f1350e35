"""A gate chooses, position by position, between the logits with a profile's final layer and those without it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steering_profiles.errors import GateError
from steering_profiles.final_layer_fields import Gate
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import (
    UNSTEERED,
    Steering,
    attach,
    choose_logits,
    divergence_layer,
    kv_cache_key,
    steered_logits,
)
from tests.builders import FAMILIES, build_model, build_profile, steer
from tests.library.examples import bands
from tests.library.running import TOKENS, logits
from tests.library.running import steered_logits as ungated_logits

FINAL = {"self_only_attention": 1.0, "intercept_scale": 0.7}
HEADS = [(0, 1, 3.0), (2, 0, -1.0)]


def gated_logits(loaded: LoadedModel, *steerings: Steering) -> Tensor:
    """One batch that holds the tokens once per steering, gates kept."""
    handle = attach(loaded)
    try:
        return steered_logits(handle, steerings, lambda: logits(loaded, TOKENS.expand(len(steerings), -1)))
    finally:
        handle.remove()


def top_probabilities(logits: Tensor) -> Tensor:
    return logits.float().softmax(dim=-1).amax(dim=-1)


def half(loaded: LoadedModel, *without: Profile) -> tuple[float, float]:
    """A band that about half of the positions are in, with ``without`` applied."""
    top = top_probabilities(ungated_logits(loaded, steer(*without))[0]).sort().values
    return float(top[len(top) // 4 : len(top) // 4 + 2].mean()), float(top[-3:-1].mean())


@st.composite
def two_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the same positions with a gate open and closed, sharp ones and flat ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from([(1, 2), (7, 5), (2, 3, 5), (300, 4), (0, 5)]))
    sharpness = rng.uniform(0, 8, (*shape[:-1], 1))
    return rng.normal(size=shape) * sharpness, rng.normal(size=shape) * sharpness


@given(two_sets(), bands())
def test_the_top_probability_of_each_position_chooses_its_logits(sets: tuple[np.ndarray, np.ndarray], gate: Gate):
    opened, closed = (one.reshape(-1, one.shape[-1]).astype(np.float32) for one in sets)
    chosen = choose_logits(*(torch.from_numpy(one.astype(np.float32)) for one in sets), gate)
    assert chosen.shape == sets[0].shape
    for found, with_, without in zip(chosen.view(opened.shape).numpy(), opened, closed, strict=True):
        top = 1 / np.exp(without.astype(np.float64) - without.max()).sum()
        if min(abs(top - gate.low), abs(top - gate.high)) > 1e-6:  # nearer than that, rounding decides
            np.testing.assert_array_equal(found, with_ if gate.low < top < gate.high else without)


def test_a_band_includes_its_ends_and_probability_1():
    certain, even = torch.tensor([[200.0, 0.0]]), torch.tensor([[3.0, 3.0]])
    other = torch.tensor([[1.0, 2.0]])
    for closed, probability in ((certain, 1.0), (even, 0.5)):
        assert torch.equal(choose_logits(other, closed, Gate(low=0.1, high=probability)), other)
        assert torch.equal(choose_logits(other, closed, Gate(low=0.0, high=probability - 0.01)), closed)
    assert torch.equal(choose_logits(other, even, Gate(low=0.5, high=1.0)), other)


def test_logits_that_are_not_finite_close_the_gate():
    broken = torch.tensor([[float("nan"), 1.0]])
    assert choose_logits(torch.ones(1, 2), broken, Gate(low=0, high=1)).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_gate_that_is_always_open_has_no_effect_and_one_that_never_opens_gives_the_baseline_bit_for_bit(
    family: str, dtype: torch.dtype
):
    loaded = build_model(family, dtype=dtype)
    ungated, opened, shut = (build_profile(loaded, **FINAL, gate=gate) for gate in (None, (0.0, 1.0), (0.0, 1e-9)))
    steered = ungated_logits(loaded, steer(ungated))
    assert not torch.equal(steered, logits(loaded))
    assert torch.equal(gated_logits(loaded, steer(opened)), steered)
    assert torch.equal(gated_logits(loaded, steer(shut)), logits(loaded))


def test_each_row_and_position_of_a_mixed_batch_has_its_own_choice(tiny: LoadedModel):
    heads, plain = build_profile(tiny, "heads", heads=HEADS), build_profile(tiny, "plain", **FINAL)
    band, late = half(tiny), half(tiny, heads)
    gated = build_profile(tiny, "gated", **FINAL, gate=band)
    also_heads = build_profile(tiny, "also-heads", heads=HEADS, **FINAL, gate=late)
    found = gated_logits(tiny, UNSTEERED, steer(gated), steer(plain), steer(also_heads), steer(heads))
    without, with_, with_heads, with_both = ungated_logits(
        tiny, UNSTEERED, steer(plain), steer(heads), steer(heads, plain)
    )
    for row, expected in ((0, without), (2, with_), (4, with_heads)):  # in batches of other sizes: up to rounding
        torch.testing.assert_close(found[row], expected)
    for row, closed, opened, (low, high) in ((1, without, with_, band), (3, with_heads, with_both, late)):
        is_open = [low <= float(top) <= high for top in top_probabilities(closed)]
        assert 2 < sum(is_open) < len(is_open) - 2, "the gate does not tell positions apart, so this proves nothing"
        for position, chosen in enumerate(is_open):
            torch.testing.assert_close(found[row, position], (opened if chosen else closed)[position])
        assert not torch.allclose(opened, closed)


def test_a_final_layer_without_a_gate_applies_everywhere_beside_a_gated_one(tiny: LoadedModel):
    always = build_profile(tiny, "always", intercept_scale=-0.5, seed=1)
    band = half(tiny, always)
    assert band != half(tiny)
    gated, ungated = (build_profile(tiny, "gated", self_only_attention=1.0, gate=gate) for gate in (band, None))
    (found,) = gated_logits(tiny, steer(always, gated))
    closed, opened = ungated_logits(tiny, steer(always), steer(always, ungated))
    torch.testing.assert_close(found, choose_logits(opened, closed, Gate(low=band[0], high=band[1])))


def test_profiles_with_the_same_gate_act_as_one(tiny: LoadedModel):
    band = half(tiny)
    parts = [{"self_only_attention": 1.0}, {"intercept_scale": 0.7}]
    several = [build_profile(tiny, f"part-{i}", **part, gate=band) for i, part in enumerate(parts)]
    whole = build_profile(tiny, "whole", **FINAL, gate=band)
    assert torch.equal(gated_logits(tiny, steer(*several)), gated_logits(tiny, steer(whole)))


def test_composing_profiles_with_different_gates_is_refused(tiny: LoadedModel):
    one, two = (build_profile(tiny, name, **FINAL, gate=(0.1, high)) for name, high in (("one", 0.5), ("two", 0.6)))
    with pytest.raises(GateError, match=r"one \(0\.1\.\.0\.5\) and two \(0\.1\.\.0\.6\)"):
        steer(one, two)


def test_one_pass_cannot_apply_a_gated_profile(tiny: LoadedModel):
    handle = attach(tiny)
    steering = steer(build_profile(tiny, "gated", **FINAL, gate=(0.1, 0.5)))
    with pytest.raises(GateError, match="gated: a gate chooses between two passes"), handle.applied([steering]):
        logits(tiny)


def test_at_strength_zero_nothing_is_gated(tiny: LoadedModel):
    asleep = steer(build_profile(tiny, **FINAL, gate=(0.1, 0.5)), strength=0.0)
    assert asleep.gate is None
    assert torch.equal(gated_logits(tiny, asleep), logits(tiny))


def test_steering_without_a_gate_takes_one_pass(tiny: LoadedModel):
    handle, passes = attach(tiny), []
    for steering, expected in ((steer(build_profile(tiny, **FINAL)), 1), (gated(tiny), 2)):
        passes.clear()
        steered_logits(handle, [steering], lambda: passes.append(1) or logits(tiny))
        assert len(passes) == expected


def gated(loaded: LoadedModel, high: float = 0.5, **settings: object) -> Steering:
    return steer(build_profile(loaded, "gated", **FINAL | settings, gate=(0.1, high)))


def test_a_gate_shares_the_kv_cache_and_diverges_in_the_last_layer(tiny: LoadedModel):
    sizes = tiny.anatomy.sizes
    ungated = steer(build_profile(tiny, "gated", **FINAL))
    assert kv_cache_key(gated(tiny), sizes) == kv_cache_key(UNSTEERED, sizes) == ()
    assert divergence_layer(gated(tiny), gated(tiny), sizes) == sizes.layers
    for other in (UNSTEERED, ungated, gated(tiny, 0.6), Steering((replace(next(iter(gated(tiny))), strength=0.5),))):
        assert divergence_layer(gated(tiny), other, sizes) == sizes.layers - 1


def test_profiles_with_the_same_name_and_different_content_are_told_apart(tiny: LoadedModel):
    one, other = gated(tiny, heads=HEADS), gated(tiny, heads=[(1, 1, 5.0)])
    found = gated_logits(tiny, one, other)
    torch.testing.assert_close(found[0], gated_logits(tiny, one)[0])
    torch.testing.assert_close(found[1], gated_logits(tiny, other)[0])
    assert not torch.allclose(found[0], found[1])
