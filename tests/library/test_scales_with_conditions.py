"""Scales with conditions of their own: a profile of several conditions is the composition of profiles with one each."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.conditions import Condition
from steering_profiles.effective import effective
from steering_profiles.errors import ConditionError, ExportError
from steering_profiles.exportable import require_exportable
from steering_profiles.leaving_out import component_names, leave_out
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import divergence_layer, effect_of, kv_cache_key
from steering_profiles.store import content_hash, load_profile, save_profile
from tests.builders import Scaled, build_model, build_profile, steer
from tests.conditional import CONDITIONS, greedy_where, logits_where, positions
from tests.library.running import ROUND_OFF, logits_of

TEXTS = ["print(str(ab 12", "a(b(cab)ab(", "no brackets here, only words"]
BRACKET, LATE = CONDITIONS["matches"], CONDITIONS["from"]
ONE, TWO, ALWAYS = [(0, 1, 3.0), (2, 3, 2.5)], [(0, 1, 0.5), (1, 2, 2.0)], [(1, 0, -1.0)]


def under(when: Mapping[str, object], scales: Sequence[tuple[int, int, float]]) -> list[Scaled]:
    return [(*scale, when) for scale in scales]


def several(loaded: LoadedModel, name: str = "test", **changes: object) -> Profile:
    """Scales under two conditions, of which one head has both, and some at every position."""
    heads = [*under(BRACKET.when, ONE), *under(LATE.when, TWO), *ALWAYS]
    return build_profile(loaded, name, heads=heads, **changes)


WHENS = st.sampled_from([None, *(where.when for where in CONDITIONS.values())])
HEADS = st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(-4, 4), WHENS)
NEURONS = st.tuples(st.integers(0, 2), st.integers(0, 39), st.floats(-4, 4), WHENS)


def place(scaled: Scaled) -> tuple[object, ...]:
    return (*scaled[:2], str(scaled[3]))


@given(
    heads=st.lists(HEADS, max_size=8, unique_by=place),
    neurons=st.lists(NEURONS, max_size=4, unique_by=place),
    everywhere=st.sampled_from([None, {"from_position": 2}]),
    share=st.sampled_from([0.0, 0.7]),
    text=st.sampled_from(TEXTS),
    strength=st.sampled_from([1.0, -0.5]),
)
@settings(max_examples=60, deadline=None)
def test_a_profile_computes_bit_for_bit_what_its_parts_compute_together(
    heads: list, neurons: list, everywhere: dict[str, object] | None, share: float, text: str, strength: float
):
    loaded = build_model("llama", dtype=torch.float32)
    whole = build_profile(
        loaded,
        heads=[one[: 3 + (one[3] is not None)] for one in heads],
        neurons=[one[: 3 + (one[3] is not None)] for one in neurons],
        when=everywhere,
        self_only_attention=share,
    )
    conditions = list(dict.fromkeys(["None", *(str(when) for *_, when in (*heads, *neurons))]))
    parts = []
    for place, described in enumerate(conditions):
        some, others = ([one for one in all_ if str(one[3]) == described] for all_ in (heads, neurons))
        own = next((one[3] for one in (*some, *others)), None)
        both = [when for when in (everywhere, own) if when is not None]
        parts.append(
            build_profile(
                loaded, f"part-{place}", heads=[one[:3] for one in some], neurons=[one[:3] for one in others],
                when=None if not both else both[0] if len(both) == 1 else {"all": both},
                self_only_attention=0.0 if place else share,
            )
        )  # fmt: skip
    one, other = steer(whole, strength=strength), steer(*parts, strength=strength)
    tokens = loaded.tokenizer.encode(text)
    assert torch.equal(logits_of(loaded, one, tokens), logits_of(loaded, other, tokens))
    sizes = loaded.anatomy.sizes
    assert divergence_layer(one, other, sizes) == sizes.layers
    found, expected = effective(one, "float32"), effective(other, "float32")
    assert (found.heads, found.neurons, found.self_only_attention) == (
        expected.heads, expected.neurons, expected.self_only_attention
    )  # fmt: skip


def test_each_scale_applies_where_its_own_condition_holds(tiny: LoadedModel):
    for text in TEXTS:
        tokens = tiny.tokenizer.encode(text)
        bracket, late = (positions(tiny, where, tokens, 5) for where in (BRACKET, LATE))
        expected = logits_where(tiny, tokens, (ONE, bracket), (TWO, late), (ALWAYS, [True] * len(tokens)))
        torch.testing.assert_close(logits_of(tiny, steer(several(tiny)), tokens), expected, **ROUND_OFF)


def test_the_profiles_own_condition_must_hold_as_well(tiny: LoadedModel):
    tokens = tiny.tokenizer.encode(TEXTS[1])
    bracket, late = (positions(tiny, where, tokens, 5) for where in (BRACKET, LATE))
    both = [one and other for one, other in zip(bracket, late, strict=True)]
    assert any(both)
    assert both != late
    profile = build_profile(tiny, heads=[*under(BRACKET.when, ONE), *ALWAYS], when=LATE.when)
    expected = logits_where(tiny, tokens, (ONE, both), (ALWAYS, late))
    torch.testing.assert_close(logits_of(tiny, steer(profile), tokens), expected, **ROUND_OFF)


def test_generate_steers_each_scale_where_it_applies(tiny: LoadedModel):
    prompt = tiny.tokenizer.encode(TEXTS[0])
    scaled = [*under(BRACKET.when, ONE), *under(LATE.when, TWO)]
    expected = greedy_where(tiny, prompt, (ONE, BRACKET), (TWO, LATE), tokens=6)
    assert expected not in (greedy_where(tiny, prompt, tokens=6), greedy_where(tiny, prompt, (ONE, BRACKET), tokens=6))
    profile = build_profile(tiny, heads=scaled)
    with profile.apply(tiny.model, tokenizer=tiny.tokenizer):
        ids = torch.tensor([prompt])
        out = tiny.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
    assert out[0, len(prompt) :].tolist() == expected
    with pytest.raises(
        ConditionError, match=r"where .*, and where the position is 7 or later, which needs the text of"
    ):
        profile.apply(tiny.model).__enter__()


def test_a_gated_final_layer_goes_with_the_scales_that_have_no_condition_of_their_own(tiny: LoadedModel):
    """Behind a gate that is always open the final layer changes every position, whatever the scales' conditions."""
    heads = under(BRACKET.when, ONE)
    gated = build_profile(tiny, heads=heads, intercept_scale=0.9, gate=(0.0, 1.0))
    plain = build_profile(tiny, heads=heads, intercept_scale=0.9)
    for text in TEXTS:
        tokens = tiny.tokenizer.encode(text)
        assert torch.equal(logits_of(tiny, steer(gated), tokens), logits_of(tiny, steer(plain), tokens))
    shut = build_profile(tiny, heads=heads, intercept_scale=0.9, gate=(0.0, 1e-9))
    tokens = tiny.tokenizer.encode(TEXTS[0])
    without = build_profile(tiny, heads=heads)
    assert torch.equal(logits_of(tiny, steer(shut), tokens), logits_of(tiny, steer(without), tokens))


def test_a_file_has_the_conditions_of_scales_and_none_where_there_are_none(tiny: LoadedModel, tmp_path):
    profile = several(tiny)
    assert load_profile(save_profile(profile, tmp_path)) == profile
    heads = profile.model_dump(mode="json")["heads"]
    assert heads[0] == {"layer": 0, "head": 1, "scale": 3.0, "when": BRACKET.when}
    assert heads[-1] == {"layer": 1, "head": 0, "scale": -1.0}
    assert content_hash(profile) != content_hash(profile.everywhere())


def test_the_summary_says_what_applies_where(tiny: LoadedModel):
    assert several(tiny).summary == (
        "1 heads x -1 everywhere; 2 heads x 2.5..3 where the text ends with a match of \\w+\\([^()]*; "
        "2 heads x 0.5..2 where the position is 7 or later"
    )
    single = build_profile(tiny, heads=under(LATE.when, ONE))
    assert single.summary == "2 heads x 2.5..3; where the position is 7 or later"
    assert single.conditions == (Condition(from_position=7),)


def test_the_effective_changes_count_a_head_once(tiny: LoadedModel):
    net = effective(steer(several(tiny)), "float32")
    assert (net.heads, net.when) == (4, tuple(str(condition) for condition in several(tiny).conditions))


def test_leaving_a_component_out_leaves_out_all_of_its_scales(tiny: LoadedModel):
    profile = several(tiny)
    assert component_names(profile) == ("L0H1", "L2H3", "L1H2", "L1H0")
    (left,) = leave_out([ProfileAtStrength(profile)], ["L0H1"])
    assert component_names(left.profile) == ("L2H3", "L1H2", "L1H0")
    tokens = tiny.tokenizer.encode(TEXTS[0])
    bracket, late = (positions(tiny, where, tokens, 5) for where in (BRACKET, LATE))
    expected = logits_where(tiny, tokens, (ONE[1:], bracket), (TWO[1:], late), (ALWAYS, [True] * len(tokens)))
    torch.testing.assert_close(logits_of(tiny, Steering((left,)), tokens), expected, **ROUND_OFF)


def test_the_key_of_the_cache_has_the_prompts_length_where_the_condition_of_a_scale_tests_it(tiny: LoadedModel):
    sizes = tiny.anatomy.sizes
    one, other = (steer(build_profile(tiny, heads=[*under(CONDITIONS[name].when, ONE), *ALWAYS]))
                  for name in ("matches", "completion"))  # fmt: skip
    assert kv_cache_key(one, sizes, 5) == kv_cache_key(one, sizes, 9)
    assert kv_cache_key(other, sizes, 5) != kv_cache_key(other, sizes, 9)
    assert kv_cache_key(one, sizes, 5) != kv_cache_key(other, sizes, 5)


def test_at_strength_0_there_are_no_conditions(tiny: LoadedModel):
    assert steer(several(tiny), strength=0.0).conditions == ()


def test_weights_cannot_express_the_conditions_of_scales(tiny: LoadedModel):
    profile = several(tiny)
    with pytest.raises(ExportError, match=r"2 conditions \(the text .*; the position is 7 or later\), which are"):
        require_exportable(ProfileAtStrength(profile))
    require_exportable(ProfileAtStrength(profile.everywhere()))
    factors = effect_of(steer(profile.everywhere()), tiny.anatomy.sizes).heads
    assert factors[0][1] == 3.0 * 0.5
    assert factors[1].tolist() == [-1.0, 1.0, 2.0, 1.0]
