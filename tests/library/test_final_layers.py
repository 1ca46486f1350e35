"""Final layers under conditions: where one holds, the prediction is that of a profile with these effects everywhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from steering_profiles.composition import ProfileAtStrength
from steering_profiles.effective import effective, self_only_attention_range
from steering_profiles.errors import ExportError, ProfileError
from steering_profiles.exportable import require_exportable
from steering_profiles.final_layer_fields import intercept_tensor
from steering_profiles.leaving_out import component_names, leave_out
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import (
    UNSTEERED,
    divergence_layer,
    effect_of,
    kv_cache_key,
)
from steering_profiles.store import content_hash, load_profile, save_profile
from tests.builders import build_profile, steer
from tests.conditional import CONDITIONS, positions
from tests.library.running import ROUND_OFF, logits_of

TEXTS = ["print(str(ab 12", "a(b(cab)ab(", "no brackets here, only words"]
BRACKET, LATE = CONDITIONS["matches"], CONDITIONS["from"]
LAYERS = ((0.7, 0.9, BRACKET.when), (0.4, -0.5, LATE.when))


def several(loaded: LoadedModel, **changes: object) -> Profile:
    return build_profile(loaded, **({"final_layers": LAYERS} | changes))


def alone(loaded: LoadedModel, place: int) -> Profile:
    """The effects in one place, at every position."""
    share, scale, _ = LAYERS[place]
    return build_profile(loaded, f"alone-{place}", self_only_attention=share, intercept_scale=scale, seed=place)


def expected(loaded: LoadedModel, tokens: Sequence[int], *, strength: float = 1.0) -> torch.Tensor:
    """At each position the logits of those that hold there, applied to the whole sequence."""
    bracket, late = (positions(loaded, where, tokens, 5) for where in (BRACKET, LATE))
    rows = []
    for at, held in enumerate(zip(bracket, late, strict=True)):
        holding = [alone(loaded, place) for place, holds in enumerate(held) if holds]
        rows.append(logits_of(loaded, steer(*holding, strength=strength), tokens)[at])
    return torch.stack(rows)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_each_applies_where_its_condition_holds_and_the_model_is_plain_elsewhere(tiny: LoadedModel, strength: float):
    for text in TEXTS:
        tokens = tiny.tokenizer.encode(text)
        found = logits_of(tiny, steer(several(tiny), strength=strength), tokens)
        torch.testing.assert_close(found, expected(tiny, tokens, strength=strength), **ROUND_OFF)


def test_the_profiles_own_condition_must_hold_as_well(tiny: LoadedModel):
    tokens = tiny.tokenizer.encode(TEXTS[1])
    bracket, late = (positions(tiny, where, tokens, 5) for where in (BRACKET, LATE))
    both = [one and other for one, other in zip(bracket, late, strict=True)]
    assert any(both)
    assert both != bracket
    profile = several(tiny, final_layers=LAYERS[:1], when=LATE.when)
    plain, steered = (logits_of(tiny, steering, tokens) for steering in (UNSTEERED, steer(alone(tiny, 0))))
    chosen = torch.where(torch.tensor(both)[:, None], steered, plain)
    torch.testing.assert_close(logits_of(tiny, steer(profile), tokens), chosen, **ROUND_OFF)


def test_it_is_bit_for_bit_the_composition_of_profiles_with_a_condition_each(tiny: LoadedModel):
    heads = [(0, 1, 3.0), (2, 3, 0.5)]
    whole = several(tiny, heads=heads)
    parts = [build_profile(tiny, "scales", heads=heads)]
    for place, (share, scale, when) in enumerate(LAYERS):
        name = f"part-{place}"
        parts.append(build_profile(tiny, name, self_only_attention=share, intercept_scale=scale, when=when, seed=place))
    one, other = steer(whole), steer(*parts)
    sizes = tiny.anatomy.sizes
    assert divergence_layer(one, other, sizes) == sizes.layers
    for text in TEXTS:
        tokens = tiny.tokenizer.encode(text)
        assert torch.equal(logits_of(tiny, one, tokens), logits_of(tiny, other, tokens))


def test_no_key_or_value_differs_from_the_plain_models(tiny: LoadedModel):
    sizes = tiny.anatomy.sizes
    assert divergence_layer(steer(several(tiny)), UNSTEERED, sizes) >= sizes.layers - 1
    assert kv_cache_key(steer(several(tiny)), sizes, 5) == kv_cache_key(UNSTEERED, sizes, 5)


def test_generate_changes_the_tokens_where_it_holds(tiny: LoadedModel):
    prompt = torch.tensor([tiny.tokenizer.encode(TEXTS[0])])
    asked = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    with several(tiny).apply(tiny.model, tokenizer=tiny.tokenizer):
        out = tiny.model.generate(prompt, max_new_tokens=6, **asked)[0].tolist()
    length = prompt.shape[1]
    logits = expected(tiny, out)
    assert out[length:] == logits[length - 1 : -1].argmax(-1).tolist()


def test_a_file_has_them_and_their_intercepts(tiny: LoadedModel, tmp_path: Path):
    profile = several(tiny)
    again = load_profile(save_profile(profile, tmp_path))
    assert content_hash(again) == content_hash(profile)
    assert all(np.array_equal(again.tensors[name], tensor) for name, tensor in profile.tensors.items())
    assert profile.model_dump(mode="json")["final_layers"][1] == {
        "own_attention": 0.4,
        "intercept_scale": -0.5,
        "when": LATE.when,
    }
    assert set(profile.tensors) == {"final_layers.0.intercept", "final_layers.1.intercept"}
    assert "final_layers" not in alone(tiny, 0).model_dump(mode="json")
    assert content_hash(profile) != content_hash(several(tiny, final_layers=LAYERS[::-1]))


def test_the_summary_and_the_effective_changes_say_what_applies_where(tiny: LoadedModel):
    profile = several(tiny)
    assert profile.summary == (
        "self-only attention 0.7, intercept x 0.9 where the text ends with a match of \\w+\\([^()]*; "
        "self-only attention 0.4, intercept x -0.5 where the position is 7 or later"
    )
    net = effective(steer(profile, strength=2.0), "float32")
    assert (net.self_only_attention, net.intercept_scale) == (1.0, 2 * (0.9 + 0.5))
    assert net.when == tuple(str(condition) for condition in profile.conditions)
    # That of the other condition is not hidden by the larger one: it can hold where that does not.
    assert net.warnings == ("test: self-only attention would be 1.4; it is clamped to 1 (all)",)
    assert self_only_attention_range(profile) == (0.0, 1 / 0.7)
    assert not profile.changes_nothing
    assert several(tiny, final_layers=[(0.0, 0.0, LATE.when)]).changes_nothing


def test_the_brief_description_counts_the_conditions(tiny: LoadedModel):
    assert several(tiny).brief == "self-only attention 0.4..0.7, intercepts x -0.5..0.9 under 2 conditions"
    heads = [(0, 1, 3.0), (2, 3, 0.5, LATE.when)]
    both = several(tiny, heads=heads, final_layers=[(0.0, 0.9, BRACKET.when)])
    assert both.brief == "2 heads x 0.5..3, intercepts x 0.9 under 2 conditions"
    assert alone(tiny, 0).brief == alone(tiny, 0).summary == "self-only attention 0.7, intercept x 0.9"
    assert build_profile(tiny, heads=[(0, 1, 3.0)], when=LATE.when).brief == "1 heads x 3 under a condition"


def test_self_only_attention_under_the_same_condition_hides_a_smaller_share(tiny: LoadedModel):
    small = build_profile(tiny, "small", self_only_attention=0.2, when=BRACKET.when)
    (warning,) = effective(steer(several(tiny), small), "float32").warnings
    assert warning == "small: self-only attention 0.2 has no effect beside another profile's"


def test_parts_of_the_final_layer_are_left_out_under_every_condition(tiny: LoadedModel):
    profile = several(tiny, heads=[(0, 1, 3.0)])
    assert component_names(profile) == ("L0H1", "final_layer.own_attention", "final_layer.intercept")
    (kept,) = leave_out([ProfileAtStrength(profile)], ["final_layer.own_attention"])
    assert [(one.self_only_attention, one.intercept_scale) for one in kept.profile.final_layers] == [
        (0, 0.9),
        (0, -0.5),
    ]
    assert all(np.array_equal(kept.profile.tensors[name], tensor) for name, tensor in profile.tensors.items())
    (none,) = leave_out([ProfileAtStrength(profile)], ["final_layer"])
    assert (none.profile.final_layers, none.profile.tensors) == ((), {})
    assert none.key[0] == content_hash(build_profile(tiny, heads=[(0, 1, 3.0)]))
    mixed = several(tiny, final_layers=[(0.7, 0.0, BRACKET.when), (0.0, 0.3, LATE.when)])
    (last,) = leave_out([ProfileAtStrength(mixed)], ["final_layer.own_attention"])
    assert list(last.profile.tensors) == [intercept_tensor(0)]
    assert np.array_equal(last.profile.tensors[intercept_tensor(0)], mixed.tensors[intercept_tensor(1)])


def test_everywhere_all_of_them_apply_together(tiny: LoadedModel):
    effect, composed = (
        effect_of(steering, tiny.anatomy.sizes)
        for steering in (steer(several(tiny).everywhere()), steer(alone(tiny, 0), alone(tiny, 1)))
    )
    assert effect.self_only_attention == composed.self_only_attention == 0.7
    assert effect.intercept is not None
    assert composed.intercept is not None
    torch.testing.assert_close(effect.intercept, composed.intercept, rtol=1e-6, atol=1e-6)


def test_weights_cannot_express_them(tiny: LoadedModel):
    with pytest.raises(ExportError, match=r"2 conditions .*self-only attention.*an intercept"):
        require_exportable(ProfileAtStrength(several(tiny)))


WRONG = {
    "beside a final layer": ({"self_only_attention": 0.5}, "a profile has final_layer or final_layers, not both"),
    "one condition twice": (
        {"final_layers": [LAYERS[0], (0.1, 0.0, BRACKET.when)]},
        r"final_layers\.1 has the condition of final_layers\.0",
    ),
    "a token that the model has not": (
        {"final_layers": [(0.1, 0.0, {"last_token": [10**6]})]},
        r"when of final_layers\.0 names the token 1000000",
    ),
    "too many conditions": (
        {"final_layers": [(0.1, 0.0, {"from_position": at}) for at in range(9)]},
        "the profile has 9 different conditions; allowed: 8",
    ),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_a_profile_that_cannot_be_applied_is_refused(tiny: LoadedModel, changes: dict[str, object], says: str):
    with pytest.raises(ValueError, match=says):
        several(tiny, **changes)


def test_intercepts_must_be_those_that_the_effects_need(tiny: LoadedModel, tmp_path: Path):
    profile = several(tiny)
    path = save_profile(profile, tmp_path)
    tensors = path.with_suffix(".safetensors")
    tensors.unlink()
    with pytest.raises(ProfileError, match=r"final_layers\.0\.intercept"):
        load_profile(path)
