"""Net effects of profiles agree with the factors that the hooks apply, and effects without result are warned of."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.effective import effective, self_only_attention_range
from steering_profiles.errors import GateError, ProfileFormatError
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer, Gate
from steering_profiles.models import LoadedModel, Sizes
from steering_profiles.schema import HeadScale, NeuronScale, Profile
from steering_profiles.steering import ProfileAtStrength, Steering, attach, effect_of
from steering_profiles.store import load_profile, save_profile
from tests.builders import build_model, build_profile
from tests.library.examples import INTERCEPT, MODEL, example, profiles

SIZES = Sizes(
    layers=MODEL.layers, heads=MODEL.heads, kv_heads=MODEL.kv_heads, head_dim=MODEL.head_dim, neurons=MODEL.neurons,
    hidden_size=MODEL.hidden_size, vocab_size=MODEL.vocab_size,
)  # fmt: skip
ONE_ATTENTION = example(heads=(), final_layer=FinalLayer(self_only_attention=1.0))
HALF_ATTENTION = example(name="half", heads=(), final_layer=FinalLayer(self_only_attention=0.5))


def composed(*profiles: tuple[Profile, float]) -> Steering:
    return Steering(tuple(ProfileAtStrength(profile, strength) for profile, strength in profiles))


@given(profiles(), st.floats(-10, 10), st.floats(-10, 10))
def test_the_summary_counts_the_components_that_the_hooks_change(profile: Profile, strength: float, another: float):
    steering = composed((profile, strength), (example(name="another"), another))
    effect = effect_of(steering, SIZES)
    found = effective(steering, "float64")
    assert found.heads == sum(int((row != 1).sum()) for row in effect.heads.values())
    assert found.neurons == sum(int((row != 1).sum()) for row in effect.neurons.values())
    assert found.self_only_attention == pytest.approx(effect.self_only_attention, abs=1e-12)


@pytest.mark.parametrize(("strength", "share"), [(-1, 0), (0, 0), (0.5, 0.5), (1, 1), (2, 1), (10, 1)])
def test_self_only_attention_out_of_range_is_clipped_with_a_warning(strength: float, share: float):
    found = effective(composed((ONE_ATTENTION, strength)), "float32")
    assert found.self_only_attention == share
    assert any("is clamped to" in warning for warning in found.warnings) == (not 0 <= strength <= 1)


@pytest.mark.parametrize(
    "steering",
    [
        [(ONE_ATTENTION, -1)],
        [(example(), 1), (example(name="undoes", heads=(HeadScale(layer=1, head=2, scale=1 / 1.5),)), 1)],
        [(example(heads=(HeadScale(layer=1, head=2, scale=1.001),)), 1)],
        [(example(), 0.001)],
        [(example(heads=(), neurons=(NeuronScale(layer=0, neuron=0, scale=1.5),)), 1e-6)],
        [(example(heads=(), final_layer=FinalLayer(intercept_scale=1.0), tensors=INTERCEPT), 1e-8)],
        [(HALF_ATTENTION, 1e-8)],
    ],
    ids=[
        *("below the range", "factors that cancel", "a small scale", "a small strength", "neurons", "an intercept"),
        "a small share",
    ],
)
def test_a_profile_without_effect_gives_a_warning(steering):
    found = effective(composed(*steering), "bfloat16")
    assert (found.heads, found.neurons, found.self_only_attention, found.intercept_scale) == (0, 0, 0, 0)
    assert "changes nothing at this strength" in found.warnings[-1]


def taking(name: str, scale: float, intercept: float) -> Profile:
    tensors = {INTERCEPT_TENSOR: INTERCEPT[INTERCEPT_TENSOR] * intercept}
    return example(name=name, heads=(), final_layer=FinalLayer(intercept_scale=scale), tensors=tensors)


@pytest.mark.parametrize(("intercept", "scale"), [(1, 0), (2, 1)], ids=["the same intercept", "another"])
def test_intercepts_cancel_only_if_they_are_equal(intercept: float, scale: float):
    found = effective(composed((taking("one", 0.5, 1), 1), (taking("other", -0.5, intercept), 1)), "float32")
    assert found.intercept_scale == scale
    assert found.is_nothing == (scale == 0)


def test_a_change_behind_a_gate_names_the_gate():
    gated, other = (
        example(name=name, final_layer=FinalLayer(self_only_attention=0.5, gate=Gate(low=0.1, high=high)))
        for name, high in (("gated", 0.5), ("other", 0.6))
    )
    assert effective(composed((gated, 1)), "float32").gate == "0.1..0.5"
    assert effective(composed((gated, -1)), "float32").gate is None
    with pytest.raises(GateError):
        effective(composed((gated, 0), (other, 0)), "float32")


@pytest.mark.parametrize("strength", [1e-3, 1e-5])
def test_a_small_change_is_applied(strength: float):
    assert effective(composed((taking("one", 1, 1), strength)), "bfloat16").intercept_scale == strength
    assert effective(composed((HALF_ATTENTION, strength)), "bfloat16").self_only_attention == strength / 2


def test_strength_0_is_no_steering_and_needs_no_warning():
    assert effective(composed((example(), 0)), "float32") == effective(composed(), "float32")


def test_the_weaker_of_two_self_only_attentions_is_named():
    found = effective(composed((HALF_ATTENTION, 1), (ONE_ATTENTION, 1)), "float32")
    assert found.self_only_attention == 1
    assert found.warnings == ("half: self-only attention 0.5 has no effect beside another profile's",)


@given(st.floats(0.9, 1.1), st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
def test_a_factor_counts_where_it_is_not_1_in_the_model_s_type(scale: float, dtype: str):
    found = effective(composed((example(heads=(HeadScale(layer=0, head=0, scale=scale),)), 1)), dtype)
    assert found.heads == int(torch.tensor(1 + (scale - 1), dtype=torch.float64).to(getattr(torch, dtype)) != 1)


@pytest.mark.parametrize("strength", [0.5, 2, -1])
def test_the_logits_change_exactly_where_something_is_effective(strength: float):
    loaded = build_model("llama", dtype=torch.float32)
    profile = build_profile(loaded, self_only_attention=1.0)
    assert (logits(loaded, profile, strength) != logits(loaded, profile, 0)).any() == bool(
        effective(composed((profile, strength)), "float32").self_only_attention
    )


@torch.no_grad()
def logits(loaded: LoadedModel, profile: Profile, strength: float) -> torch.Tensor:
    handle = attach(loaded)
    with handle.applied([composed((profile, strength))]):
        found: torch.Tensor = loaded.model(torch.tensor([[5, 6, 7, 8]])).logits
    handle.remove()
    return found


def test_the_range_of_self_only_attention_ends_at_full_replacement():
    assert self_only_attention_range(HALF_ATTENTION) == (0, 2)
    assert self_only_attention_range(example()) is None


@pytest.mark.parametrize(
    "nothing",
    [
        {"heads": ()},
        {"heads": (HeadScale(layer=1, head=2, scale=1),)},
        {"heads": (), "neurons": (NeuronScale(layer=1, neuron=2, scale=1.0),)},
        {
            "heads": (),
            "final_layer": FinalLayer(intercept_scale=1.0),
            "tensors": {INTERCEPT_TENSOR: INTERCEPT[INTERCEPT_TENSOR] * 0},
        },
    ],
    ids=["empty", "heads by 1", "neurons by 1", "an intercept of zeros"],
)
def test_a_profile_that_changes_nothing_is_refused_when_it_is_read(tmp_path, nothing):
    path = save_profile(example(**nothing), tmp_path)
    with pytest.raises(ProfileFormatError, match=r"example\.json: the profile has no effect"):
        load_profile(path)
