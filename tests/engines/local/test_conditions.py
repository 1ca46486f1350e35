"""The engine tests conditions token by token, however sequences are batched, cut, shared, reused and preempted."""

from dataclasses import replace

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_server.engines.local.kv_cache import bytes_per_token
from steering_server.generation.requests import GenerationRequest
from tests.builders import build_model, build_profile, greedy, steer
from tests.conditional import CONDITIONS, Scales, Where, greedy_where, logits_where, positions
from tests.engines.local.running import GREEDY, running

SCALES: Scales = [(0, 1, 3.0), (1, 0, -1.0), (2, 3, 2.5)]
UPPER: Scales = [(1, 1, 4.0), (2, 0, -2.0)]
LATER: Scales = [(0, 1, 0.25), (2, 2, 3.0)]
SHORT = replace(GREEDY, max_tokens=6)
TEXTS = ["print(str(ab 12", "a(b(cab)ab(", "no brackets, only abababab words"]


def prompts(loaded: LoadedModel) -> list[tuple[int, ...]]:
    return [tuple(loaded.tokenizer.encode(text)) for text in TEXTS]


def conditional(loaded: LoadedModel, name: str, scales: Scales = SCALES) -> Steering:
    return steer(build_profile(loaded, name.replace(" ", "-"), heads=scales, when=CONDITIONS[name].when))


@pytest.mark.parametrize("limits", [{}, {"max_num_batched_tokens": 3}], ids=["whole", "chunked"])
def test_a_batch_of_all_conditions_generates_what_scaling_by_hand_does(tiny: LoadedModel, limits: dict[str, int]):
    steerings = [UNSTEERED, *(conditional(tiny, name) for name in CONDITIONS)]
    asked = prompts(tiny)
    with running(tiny, **limits) as at_work:
        answers = [at_work.run(*(GenerationRequest(prompt, SHORT, one) for one in steerings)) for prompt in asked]
    for prompt, (plain, *results) in zip(asked, answers, strict=True):
        assert list(plain.tokens) == greedy(tiny, prompt, tokens=6, guess=plain.tokens)
        for where, result in zip(CONDITIONS.values(), results, strict=True):
            expected = greedy_where(tiny, prompt, (SCALES, where), tokens=6, guess=result.tokens)
            assert list(result.tokens) == expected, where.when
        assert len({result.tokens for result in results}) > 2, "the conditions do not differ on this prompt"


def test_profiles_with_different_conditions_are_composed_token_by_token(tiny: LoadedModel):
    both = Steering((*conditional(tiny, "matches"), *conditional(tiny, "from", UPPER)))
    with running(tiny) as at_work:
        results = at_work.run(*(GenerationRequest(prompt, SHORT, both) for prompt in prompts(tiny)))
    for prompt, result in zip(prompts(tiny), results, strict=True):
        scaled = (SCALES, CONDITIONS["matches"]), (UPPER, CONDITIONS["from"])
        assert list(result.tokens) == greedy_where(tiny, prompt, *scaled, tokens=6, guess=result.tokens)


def several(loaded: LoadedModel) -> Steering:
    """One profile, whose scales have two conditions, of which one head has both."""
    both = [
        (*scale, CONDITIONS[name].when) for name, some in (("matches", SCALES), ("completion", LATER)) for scale in some
    ]
    return steer(build_profile(loaded, "several", heads=[*both, *UPPER]))


def test_a_profile_of_several_conditions_in_a_mixed_batch_scales_each_where_it_says(tiny: LoadedModel):
    others = [UNSTEERED, conditional(tiny, "from"), conditional(tiny, "prompt")]
    asked = [GenerationRequest(prompt, SHORT, one) for prompt in prompts(tiny) for one in (several(tiny), *others)]
    with running(tiny, max_num_batched_tokens=5) as at_work:
        results = at_work.run(*asked)[:: 1 + len(others)]
    always = Where({}, lambda *_: True)
    for prompt, result in zip(prompts(tiny), results, strict=True):
        scaled = (SCALES, CONDITIONS["matches"]), (LATER, CONDITIONS["completion"]), (UPPER, always)
        assert list(result.tokens) == greedy_where(tiny, prompt, *scaled, tokens=6, guess=result.tokens)


def test_a_profile_of_several_conditions_is_bit_for_bit_its_parts_composed():
    loaded = build_model("llama", dtype=torch.float32)
    parts = Steering(
        (
            *steer(build_profile(loaded, "always", heads=UPPER)),
            *conditional(loaded, "matches"),
            *conditional(loaded, "completion", LATER),
        )
    )
    scored = replace(GREEDY, logprobs=0, prompt_logprobs_from=0)
    requests = [
        GenerationRequest(prompt, scored, one) for prompt in prompts(loaded) for one in (several(loaded), parts)
    ]
    with running(loaded, prefix_cache=False) as at_work:
        assert at_work.engine.batch_invariance.holds, at_work.engine.batch_invariance.reason
        alone = [at_work.run(request)[0] for request in requests]
        together = at_work.run(*requests)
    for results in (alone, together):
        for whole, composed in zip(results[::2], results[1::2], strict=True):
            assert whole.tokens == composed.tokens
            assert whole.logprobs == composed.logprobs
            assert whole.prompt_logprobs == composed.prompt_logprobs


LAYERS = ((0.7, 0.9, CONDITIONS["matches"].when), (0.4, -0.5, CONDITIONS["last prompt token"].when))


def test_final_layers_under_conditions_are_bit_for_bit_profiles_with_one_each():
    loaded = build_model("llama", dtype=torch.float32)
    whole = steer(build_profile(loaded, "whole", heads=UPPER, final_layers=LAYERS))
    parts = [build_profile(loaded, "scales", heads=UPPER)]
    for place, (share, scale, when) in enumerate(LAYERS):
        name = f"part-{place}"
        parts.append(
            build_profile(loaded, name, self_only_attention=share, intercept_scale=scale, when=when, seed=place)
        )
    scored = replace(GREEDY, logprobs=0, prompt_logprobs_from=0)
    steerings = (whole, steer(*parts), steer(parts[0]))
    requests = [GenerationRequest(prompt, scored, one) for prompt in prompts(loaded) for one in steerings]
    with running(loaded) as at_work:
        results = at_work.run(*requests)
    for one, other, without in zip(results[::3], results[1::3], results[2::3], strict=True):
        assert (one.tokens, one.logprobs, one.prompt_logprobs) == (other.tokens, other.logprobs, other.prompt_logprobs)
        assert one.logprobs != without.logprobs


def test_final_layers_under_conditions_generate_what_the_librarys_hooks_do(tiny: LoadedModel):
    profile = build_profile(tiny, "whole", heads=UPPER, final_layers=LAYERS)
    others = [UNSTEERED, conditional(tiny, "from"), steer(build_profile(tiny, "always", intercept_scale=0.5))]
    asked = [GenerationRequest(prompt, SHORT, one) for prompt in prompts(tiny) for one in (steer(profile), *others)]
    with running(tiny, max_num_batched_tokens=5) as at_work:
        results = at_work.run(*asked)[:: 1 + len(others)]
    for prompt, result in zip(prompts(tiny), results, strict=True):
        ids = torch.tensor([prompt])
        options = {"do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
        with profile.apply(tiny.model, tokenizer=tiny.tokenizer):
            out = tiny.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, **options)
        assert list(result.tokens) == out[0, len(prompt) :].tolist()


def test_a_prefix_is_reused_under_the_same_condition_only(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    prompt = prompts(tiny)[0]
    name = "ends with"
    with running(tiny) as at_work:
        (first,) = at_work.run(GenerationRequest(prompt, SHORT, conditional(tiny, name)))
        computed = at_work.watch(monkeypatch)
        (again,) = at_work.run(GenerationRequest(prompt, SHORT, conditional(tiny, name)))
        assert len(computed[0].tokens) == 1, "the same condition reads its own cache"
        computed.clear()
        (other,) = at_work.run(GenerationRequest(prompt, SHORT, conditional(tiny, "matches")))
        assert len(computed[0].tokens) == len(prompt), "another condition does not"
    assert first.tokens == again.tokens
    expected = greedy_where(tiny, prompt, (SCALES, CONDITIONS["matches"]), tokens=6, guess=other.tokens)
    assert list(other.tokens) == expected


@pytest.mark.parametrize("name", ["prompt", "completion", "last prompt token"])
def test_what_was_a_completion_is_not_reused_as_a_prompt_where_that_differs(tiny: LoadedModel, name: str):
    prompt, where = prompts(tiny)[0], CONDITIONS[name]
    with running(tiny) as at_work:
        (first,) = at_work.run(GenerationRequest(prompt, GREEDY, conditional(tiny, name)))
        longer = (*prompt, *first.tokens)
        (second,) = at_work.run(GenerationRequest(longer, SHORT, conditional(tiny, name)))
    assert list(second.tokens) == greedy_where(tiny, longer, (SCALES, where), tokens=6, guess=second.tokens)


def test_arms_share_the_layers_that_no_condition_changes(tiny: LoadedModel):
    prompt, tokens_at = prompts(tiny)[0], [0] * len(tiny.anatomy.layers)
    arms = [UNSTEERED, conditional(tiny, "matches", UPPER), conditional(tiny, "from", UPPER)]
    once = replace(GREEDY, max_tokens=1)
    with running(tiny) as at_work:
        for layer, parts in enumerate(tiny.anatomy.layers):

            def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...], layer: int = layer) -> None:
                tokens_at[layer] += args[0].shape[1]

            parts.head_output.register_forward_pre_hook(count)
        results = at_work.run(*(GenerationRequest(prompt, once, arm) for arm in arms))
    for layer in tiny.anatomy.layers:
        layer.head_output._forward_pre_hooks.clear()
    assert tokens_at == [len(prompt), 3 * len(prompt), 3 * len(prompt)]
    expected = [greedy(tiny, prompt, tokens=1)] + [
        greedy_where(tiny, prompt, (UPPER, CONDITIONS[name]), tokens=1) for name in ("matches", "from")
    ]
    assert [list(result.tokens) for result in results] == expected


def test_a_gated_profile_is_gated_where_its_condition_holds(tiny: LoadedModel):
    gated = steer(build_profile(tiny, "g", intercept_scale=25.0, gate=(0.0, 1.0), when={"ends_with": ["(", "ab"]}))
    always = steer(build_profile(tiny, "a", intercept_scale=25.0))
    once = replace(GREEDY, max_tokens=1)
    texts = {tuple(tiny.tokenizer.encode(text)): holds for text, holds in (("xab(", True), ("x(ab)", False))}
    with running(tiny) as at_work:
        results = at_work.run(*(GenerationRequest(prompt, once, gated) for prompt in texts))
    for (prompt, holds), result in zip(texts.items(), results, strict=True):
        assert greedy(tiny, prompt, always, 1) != greedy(tiny, prompt, tokens=1)
        assert list(result.tokens) == greedy(tiny, prompt, always if holds else UNSTEERED, 1)


@pytest.mark.parametrize("limits", [{}, {"max_num_batched_tokens": 3}], ids=["whole", "chunked"])
def test_the_final_layer_at_the_last_prompt_token_changes_the_first_token_alone(
    tiny: LoadedModel, limits: dict[str, int]
):
    changes = {"self_only_attention": 1.0, "intercept_scale": 25.0}
    once = steer(build_profile(tiny, "once", **changes, when={"part": "last_prompt_token"}))
    always = steer(build_profile(tiny, "always", **changes))
    asked = prompts(tiny)
    with running(tiny, **limits) as at_work:
        results = at_work.run(*(GenerationRequest(prompt, SHORT, one) for prompt in asked for one in (once, UNSTEERED)))
    changed = 0
    for prompt, result in zip(asked, results[::2], strict=True):
        (first,) = greedy(tiny, prompt, always, 1)
        rest = greedy(tiny, (*prompt, first), tokens=5, guess=result.tokens[1:])
        assert list(result.tokens) == [first, *rest]
        changed += first != greedy(tiny, prompt, tokens=1)[0] and [first, *rest] != greedy(tiny, prompt, always, 6)
    assert changed, "neither the first token nor the others would tell where the final layer was changed"


def test_preempted_sequences_are_steered_at_the_same_positions_again(monkeypatch: pytest.MonkeyPatch):
    loaded = build_model("llama", dtype=torch.float32)
    warm = [replace(GREEDY, temperature=1.0, seed=seed, max_tokens=80) for seed in range(4)]
    names = ["matches", "completion", "joined", "last prompt token"]
    requests = [
        GenerationRequest(prompts(loaded)[seed % 3] * 3, params, conditional(loaded, name))
        for seed, (params, name) in enumerate(zip(warm, names, strict=True))
    ]
    with running(loaded, max_length=256) as at_work:
        expected = at_work.run(*requests)
    with running(loaded, max_length=256, kv_cache_memory=300 * bytes_per_token(loaded)) as at_work:
        computed = at_work.watch(monkeypatch)
        results = at_work.run(*requests)
    assert sum(len(row.tokens) > 1 for row in computed) > len(requests), "none was preempted"
    assert [result.tokens for result in results] == [result.tokens for result in expected]


def test_logprobs_are_bit_for_bit_those_of_the_sequence_alone():
    """The kernels compute each token by itself, so that what others are steered by, and where, makes no difference."""
    loaded = build_model("llama", dtype=torch.float32)
    scored = replace(GREEDY, logprobs=0, prompt_logprobs_from=0)
    requests = [
        GenerationRequest(prompt, scored, conditional(loaded, name))
        for prompt in prompts(loaded)
        for name in CONDITIONS
    ]
    with running(loaded, prefix_cache=False) as at_work:
        assert at_work.engine.batch_invariance.holds, at_work.engine.batch_invariance.reason
        alone = [at_work.run(request)[0] for request in requests]
        together = at_work.run(*requests)
    with running(loaded, prefix_cache=False, max_num_batched_tokens=5) as at_work:
        chunked = at_work.run(*requests)
    for one, other, third in zip(alone, together, chunked, strict=True):
        assert one.logprobs == other.logprobs == third.logprobs
        assert one.prompt_logprobs == other.prompt_logprobs == third.prompt_logprobs


def test_prompt_logprobs_are_those_of_scaling_by_hand(tiny: LoadedModel):
    prompt, name = prompts(tiny)[0], "joined"
    scoring = replace(GREEDY, max_tokens=0, prompt_logprobs_from=0)
    with running(tiny, max_num_batched_tokens=4) as at_work:
        (result,) = at_work.run(GenerationRequest(prompt, scoring, conditional(tiny, name)))
    assert result.prompt_logprobs is not None
    likely = logits_where(tiny, prompt, (SCALES, positions(tiny, CONDITIONS[name], prompt, len(prompt)))).log_softmax(
        -1
    )
    expected = [float(likely[at - 1, token]) for at, token in enumerate(prompt) if at]
    assert [one.logprob for one in result.prompt_logprobs if one] == pytest.approx(expected, abs=1e-4)
