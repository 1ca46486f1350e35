"""A profile with a condition changes exactly the positions where it holds, as scaling by hand there does."""

import pytest
import torch

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.effective import effective
from steering_profiles.errors import ConditionError, ExportError, HookError
from steering_profiles.evaluation import TextPredictor, TokenPredictor, Window
from steering_profiles.evaluation.decoding import GreedyDecoder
from steering_profiles.exportable import require_exportable
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import TextReader, attach, divergence_layer, kv_cache_key, steered_logits
from steering_profiles.store import content_hash, load_profile, save_profile
from steering_profiles.tasks import Example
from tests.builders import FAMILIES, build_model, build_profile, steer
from tests.conditional import CONDITIONS, greedy_where, logits_where, positions
from tests.library.running import ROUND_OFF

HEADS = [(0, 1, 3.0), (1, 0, -1.0), (2, 3, 2.5)]
TEXTS = ["print(str(ab 12", "a(b(cab)ab(", "no brackets here, only words"]


def conditional(loaded: LoadedModel, name: str, scales=HEADS, profile: str = "test") -> Profile:
    return build_profile(loaded, profile, heads=scales, when=CONDITIONS[name].when)


def encoded(loaded: LoadedModel, text: str) -> list[int]:
    return loaded.tokenizer.encode(text)


@torch.no_grad()
def logits_of(loaded: LoadedModel, steering: Steering, tokens: list[int], prompt_length: int) -> torch.Tensor:
    handle, reader = attach(loaded), TextReader(loaded.tokenizer)
    held = reader.held(steering, [(tokens, prompt_length)], len(tokens))
    logits = steered_logits(handle, [steering], lambda: loaded.model(torch.tensor([tokens])).logits, held)
    handle.remove()
    return logits[0]


@pytest.mark.parametrize("name", CONDITIONS)
def test_positions_where_the_condition_holds_are_steered_and_no_others(tiny: LoadedModel, name: str):
    somewhere = 0
    for text in TEXTS:
        tokens = encoded(tiny, text)
        holds = positions(tiny, CONDITIONS[name], tokens, 6)
        somewhere += 0 < sum(holds) < len(holds)
        actual = logits_of(tiny, steer(conditional(tiny, name)), tokens, 6)
        torch.testing.assert_close(actual, logits_where(tiny, tokens, (HEADS, holds)), **ROUND_OFF)
    assert somewhere, "the condition makes no difference between the positions of these texts"


def test_profiles_with_different_conditions_take_effect_where_each_holds(tiny: LoadedModel):
    other, always = [(0, 1, 0.5), (1, 2, 2.0)], [(2, 0, -1.0)]
    steering = steer(
        conditional(tiny, "ends with", profile="one"),
        conditional(tiny, "matches", other, profile="two"),
        build_profile(tiny, "three", heads=always),
    )
    tokens = encoded(tiny, TEXTS[0])
    one, two = (positions(tiny, CONDITIONS[name], tokens, 5) for name in ("ends with", "matches"))
    assert {(a, b) for a, b in zip(one, two, strict=True)} >= {(True, True), (False, True), (False, False)}
    expected = logits_where(tiny, tokens, (HEADS, one), (other, two), (always, [True] * len(tokens)))
    torch.testing.assert_close(logits_of(tiny, steering, tokens, 5), expected, **ROUND_OFF)


def test_strength_scales_the_effect_where_the_condition_holds(tiny: LoadedModel):
    tokens = encoded(tiny, TEXTS[1])
    holds = positions(tiny, CONDITIONS["matches"], tokens, 5)
    half = [(layer, head, 1 + 0.5 * (scale - 1)) for layer, head, scale in HEADS]
    actual = logits_of(tiny, steer(conditional(tiny, "matches"), strength=0.5), tokens, 5)
    torch.testing.assert_close(actual, logits_where(tiny, tokens, (half, holds)), **ROUND_OFF)


@pytest.mark.parametrize("effect", ["neurons", "self_only_attention", "intercept_scale"])
def test_every_kind_of_effect_follows_the_condition(tiny: LoadedModel, effect: str):
    """The last token's logits depend on these effects of the final layer at its own position alone."""
    changes = {"neurons": [(2, 7, 6.0)], "self_only_attention": 0.7, "intercept_scale": 0.9}
    only = {effect: changes[effect]}
    for text, holds in (("ab(", True), ("(ab)", False)):
        tokens = encoded(tiny, text)
        where = logits_of(tiny, steer(build_profile(tiny, when={"ends_with": ["("]}, **only)), tokens, 1)[-1]
        everywhere = logits_of(tiny, steer(build_profile(tiny, **only)), tokens, 1)[-1]
        plain = logits_where(tiny, tokens)[-1]
        assert not torch.allclose(everywhere, plain, atol=1e-4)
        torch.testing.assert_close(where, everywhere if holds else plain, **ROUND_OFF)


def test_a_gated_profile_is_gated_where_its_condition_holds_and_off_elsewhere(tiny: LoadedModel):
    gated = build_profile(tiny, intercept_scale=0.9, gate=(0.0, 1.0), when={"ends_with": ["("]})
    always = build_profile(tiny, intercept_scale=0.9)
    for text, holds in (("ab(", True), ("(ab)", False)):
        tokens = encoded(tiny, text)
        expected = logits_of(tiny, steer(always), tokens, 1)[-1] if holds else logits_where(tiny, tokens)[-1]
        torch.testing.assert_close(logits_of(tiny, steer(gated), tokens, 1)[-1], expected, **ROUND_OFF)


FINAL_LAYER = {"self_only_attention": 0.7, "intercept_scale": 0.9}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_final_layer_is_changed_at_the_last_prompt_token_alone(family: str, dtype: torch.dtype):
    """The other positions are bit for bit the plain model's, since the final layer changes no key or value."""
    loaded = build_model(family, dtype=dtype)
    tokens = encoded(loaded, TEXTS[2])
    once = build_profile(loaded, **FINAL_LAYER, when={"part": "last_prompt_token"})
    where = logits_of(loaded, steer(once), tokens, 6)
    everywhere = logits_of(loaded, steer(build_profile(loaded, **FINAL_LAYER)), tokens, 6)
    plain = logits_where(loaded, tokens)
    torch.testing.assert_close(where[5], everywhere[5], **(ROUND_OFF if dtype == torch.float32 else {}))
    assert not torch.allclose(where[5], plain[5], atol=1e-4)
    assert torch.equal(torch.cat([where[:5], where[6:]]), torch.cat([plain[:5], plain[6:]]))


@pytest.mark.parametrize("name", ["matches", "completion", "last prompt token", "joined"])
def test_generate_is_steered_where_the_condition_holds(tiny: LoadedModel, name: str):
    prompt = encoded(tiny, TEXTS[0])
    expected = greedy_where(tiny, prompt, (HEADS, CONDITIONS[name]), tokens=6)
    assert expected != greedy_where(tiny, prompt, tokens=6)
    with conditional(tiny, name).apply(tiny.model, tokenizer=tiny.tokenizer):
        ids = torch.tensor([prompt])
        out = tiny.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
    assert out[0, len(prompt) :].tolist() == expected


def test_generate_leaves_out_the_padding_of_a_batch(tiny: LoadedModel):
    prompts = [encoded(tiny, text) for text in TEXTS[:2]]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with conditional(tiny, "joined").apply(tiny.model, tokenizer=tiny.tokenizer):
        out = tiny.model.generate(
            ids, attention_mask=mask, max_new_tokens=4, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
    for row, prompt in enumerate(prompts):
        assert out[row, longest:].tolist() == greedy_where(tiny, prompt, (HEADS, CONDITIONS["joined"]), tokens=4)


def test_beam_search_reads_the_text_of_each_beam():
    loaded = build_model("llama")
    prompt, name = encoded(loaded, TEXTS[0]), "joined"
    ids = torch.tensor([prompt])
    with conditional(loaded, name).apply(loaded.model, tokenizer=loaded.tokenizer):
        out = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, num_beams=4, num_return_sequences=4,
            do_sample=False, eos_token_id=-1, pad_token_id=0, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    for sequence, score in zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
        holds = positions(loaded, CONDITIONS[name], sequence, len(prompt))
        likely = logits_where(loaded, sequence, (HEADS, holds)).float().log_softmax(-1)
        steps = range(len(prompt), len(sequence))
        assert sum(float(likely[at - 1, sequence[at]]) for at in steps) / len(steps) == pytest.approx(score, abs=1e-4)


def test_evaluation_tests_the_condition_too(tiny: LoadedModel):
    profile = conditional(tiny, "matches")
    where, prompts = CONDITIONS["matches"], [tuple(encoded(tiny, text)) for text in TEXTS]
    expected = [greedy_where(tiny, prompt, (HEADS, where), tokens=4) for prompt in prompts]
    with TokenPredictor(tiny) as predictor:
        examples = [Example("g", text, prompt, 0) for text, prompt in zip(TEXTS, prompts, strict=True)]
        assert predictor.predict(examples, steer(profile)) == [tokens[0] for tokens in expected]
    with GreedyDecoder(tiny) as decoder:
        decoder._ends = frozenset()
        completions = decoder.complete(TEXTS, [steer(profile)] * len(TEXTS), 4)
    for prompt, tokens, completion in zip(prompts, expected, completions, strict=True):
        before = tiny.tokenizer.decode(prompt)
        assert completion == tiny.tokenizer.decode([*prompt, *tokens], skip_special_tokens=True).removeprefix(before)
    windows = [Window(prompt, 3) for prompt in prompts]
    with TextPredictor(tiny) as texts:
        measured = texts.token_scores(windows, steer(profile)).nll
    by_hand = []
    for window in windows:
        logits = logits_where(tiny, window.tokens, (HEADS, positions(tiny, where, window.tokens, 3)))
        by_hand.append(-logits.log_softmax(-1)[range(2, len(window.tokens) - 1), window.tokens[3:]])
    torch.testing.assert_close(measured, torch.cat(by_hand), **ROUND_OFF)


def test_a_pass_without_tokens_is_refused_rather_than_left_unsteered(tiny: LoadedModel):
    profile = conditional(tiny, "matches")
    handle = attach(tiny)
    with pytest.raises(ConditionError, match="tested token by token"), handle.applied([steer(profile)]):
        pass
    handle.remove()
    with pytest.raises(ConditionError, match="give the tokenizer"), profile.apply(tiny.model):
        pass
    embedded = tiny.model.get_input_embeddings()(torch.tensor([[1, 2]]))
    with pytest.raises(ConditionError, match="inputs_embeds"), profile.apply(tiny.model, tokenizer=tiny.tokenizer):
        tiny.model(inputs_embeds=embedded)
    with (
        pytest.raises(HookError, match="no forward pass was made"),
        profile.apply(tiny.model, tokenizer=tiny.tokenizer),
    ):
        pass


def test_a_pass_that_continues_a_text_from_before_is_refused(tiny: LoadedModel):
    before = tiny.model(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    profile = conditional(tiny, "matches")
    with pytest.raises(ConditionError, match="after 3 tokens"), profile.apply(tiny.model, tokenizer=tiny.tokenizer):
        tiny.model(torch.tensor([[4]]), past_key_values=before, use_cache=True)


def test_strength_0_needs_no_tokens_and_changes_nothing(tiny: LoadedModel):
    at_zero = steer(conditional(tiny, "matches"), strength=0.0)
    assert at_zero.conditions == ()
    assert torch.equal(logits_of(tiny, at_zero, [1, 2, 3], 1), tiny.model(torch.tensor([[1, 2, 3]])).logits[0])


def test_the_condition_is_part_of_the_content_hash_and_of_the_file(tiny: LoadedModel, tmp_path):
    plain, one, other = (
        build_profile(tiny, heads=HEADS, when=when) for when in (None, {"from_position": 1}, {"from_position": 2})
    )
    assert len({content_hash(profile) for profile in (plain, one, other)}) == 3
    assert "when" not in plain.model_dump()
    assert load_profile(save_profile(one, tmp_path)) == one
    assert one.summary.endswith("; where the position is 1 or later")


def test_a_token_that_the_model_does_not_have_is_refused(tiny: LoadedModel):
    with pytest.raises(ValueError, match=r"when names the token 99999, but the profile's model has \d+ tokens"):
        build_profile(tiny, heads=HEADS, when={"last_token": [99999]})


def test_the_key_of_the_cache_has_the_prompts_length_where_the_condition_tests_it(tiny: LoadedModel):
    sizes = tiny.anatomy.sizes
    tokens_only, part = (steer(conditional(tiny, name)) for name in ("matches", "completion"))
    assert kv_cache_key(tokens_only, sizes, 5) == kv_cache_key(tokens_only, sizes, 9)
    assert kv_cache_key(part, sizes, 5) != kv_cache_key(part, sizes, 9)
    with pytest.raises(ConditionError, match="where the prompt ends"):
        kv_cache_key(part, sizes)


def test_sequences_share_layers_below_those_that_a_condition_changes(tiny: LoadedModel):
    sizes = tiny.anatomy.sizes
    upper = [(1, 0, 2.0)]
    one, other = (steer(conditional(tiny, name, upper, name.replace(" ", "-"))) for name in ("matches", "from"))
    both = Steering((*one, *other))
    always = steer(build_profile(tiny, heads=upper))
    assert divergence_layer(one, one, sizes) == sizes.layers
    for two in (other, both, always, Steering()):
        assert divergence_layer(one, two, sizes) == 1
    last = steer(conditional(tiny, "from", [(2, 1, 3.0)], "last"))
    assert divergence_layer(one, Steering((*one, *last)), sizes) == 2


def test_factors_under_different_conditions_do_not_cancel(tiny: LoadedModel):
    doubled, halved = ([(0, 1, scale)] for scale in (2.0, 0.5))
    same = steer(conditional(tiny, "from", doubled, "a"), conditional(tiny, "from", halved, "b"))
    different = steer(conditional(tiny, "from", doubled, "a"), conditional(tiny, "matches", halved, "b"))
    assert effective(same, "float32").is_nothing
    net = effective(different, "float32")
    assert (net.heads, len(net.when), net.is_nothing) == (1, 2, False)


def test_weights_cannot_express_a_condition(tiny: LoadedModel):
    with pytest.raises(ExportError, match=r"a condition \(the position is 7 or later\), which is tested token by"):
        require_exportable(ProfileAtStrength(conditional(tiny, "from")))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_before_the_condition_holds_are_bit_for_bit_unsteered(family: str, dtype: torch.dtype):
    loaded = build_model(family, dtype=dtype)
    tokens = encoded(loaded, TEXTS[2])
    steering = steer(build_profile(loaded, heads=HEADS, when={"from_position": 9}))
    actual, plain = logits_of(loaded, steering, tokens, 4), logits_where(loaded, tokens)
    assert torch.equal(actual[:9], plain[:9])
    assert not torch.equal(actual[9:], plain[9:])
