"""Sequences with a common prefix share its KV cache, unless they are steered differently."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.kv_cache import bytes_per_token
from steering_server.errors import ConfigError
from steering_server.generation.requests import GenerationRequest
from steering_server.limits import EngineLimits
from tests.builders import build_model, build_profile, every_effect, greedy, steer
from tests.engines.local.running import GREEDY, running

SYSTEM = tuple(range(40, 80))
QUESTIONS = [(*SYSTEM, *question) for question in ((1, 2, 3), (1, 2, 4, 5), (9,) * 20, ())]


def late(loaded: LoadedModel, layer: int, scale: float = 4.0) -> Steering:
    """A profile that changes nothing below ``layer``."""
    return steer(build_profile(loaded, f"late-{layer}", heads=[(layer, 1, scale)], neurons=[(layer, 3, scale)]))


def final(loaded: LoadedModel) -> Steering:
    """A profile of the final layer, which changes no key or value."""
    return steer(build_profile(loaded, "final", self_only_attention=1.0, intercept_scale=0.7))


def arms(loaded: LoadedModel) -> list[Steering]:
    """Arms that diverge at each of the layers, two of them equal."""
    return [
        UNSTEERED,
        late(loaded, 1),
        late(loaded, 2),
        final(loaded),
        late(loaded, 1, 2.0),
        *every_effect(loaded).values(),
    ]


@pytest.mark.parametrize("max_num_batched_tokens", [512, 7], ids=["whole", "chunked"])
@pytest.mark.parametrize("prefix_cache", [True, False], ids=["cache on", "cache off"])
def test_every_arm_generates_what_the_model_would_with_and_without_sharing(
    tiny: LoadedModel, prefix_cache: bool, max_num_batched_tokens: int
):
    expected = {prompt: [greedy(tiny, prompt, steering) for steering in arms(tiny)] for prompt in QUESTIONS}
    assert len({tuple(tokens) for by_arm in expected.values() for tokens in by_arm}) > len(arms(tiny))
    with running(tiny, prefix_cache=prefix_cache, max_num_batched_tokens=max_num_batched_tokens) as at_work:
        for prompt in QUESTIONS:
            results = at_work.run(*(GenerationRequest(prompt, GREEDY, steering) for steering in arms(tiny)))
            assert [list(result.tokens) for result in results] == expected[prompt]
        everything = [(prompt, arm) for prompt in QUESTIONS for arm in range(len(arms(tiny)))]
        results = at_work.run(*(GenerationRequest(prompt, GREEDY, arms(tiny)[arm]) for prompt, arm in everything))
    assert [list(result.tokens) for result in results] == [expected[prompt][arm] for prompt, arm in everything]


def test_a_computed_prefix_is_not_computed_again(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    with running(tiny) as at_work:
        at_work.run(GenerationRequest(QUESTIONS[0], GREEDY))
        computed = at_work.watch(monkeypatch)
        at_work.run(GenerationRequest(QUESTIONS[1], replace(GREEDY, max_tokens=1)))
    (row,) = computed
    assert row.position == len(SYSTEM) + 2  # the system prompt and the common prefix of the questions


def test_a_generated_text_is_a_reusable_prefix(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    with running(tiny) as at_work:
        (answer,) = at_work.run(GenerationRequest(SYSTEM, GREEDY))
        computed = at_work.watch(monkeypatch)
        at_work.run(GenerationRequest((*SYSTEM, *answer.tokens, 7), replace(GREEDY, max_tokens=1)))
    assert sum(len(row.tokens) for row in computed) == 2  # the last generated token and the new one


def test_every_token_is_computed_without_the_cache(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    with running(tiny, prefix_cache=False) as at_work:
        at_work.run(GenerationRequest(SYSTEM, GREEDY))
        computed = at_work.watch(monkeypatch)
        at_work.run(GenerationRequest(SYSTEM, replace(GREEDY, max_tokens=1)))
    assert sum(len(row.tokens) for row in computed) == len(SYSTEM)


def test_the_kv_cache_is_not_shared_between_steerings(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    heads = late(tiny, 0)
    with running(tiny) as at_work:
        at_work.run(GenerationRequest(SYSTEM, GREEDY))
        computed = at_work.watch(monkeypatch)
        for steering in (heads, Steering(tuple(replace(one, strength=0.5) for one in heads))):
            at_work.run(GenerationRequest(SYSTEM, replace(GREEDY, max_tokens=1), steering))
    assert [len(row.tokens) for row in computed] == [len(SYSTEM)] * 2


def test_arms_of_final_layer_profiles_share_the_whole_prompt(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    with running(tiny) as at_work:
        computed = at_work.watch(monkeypatch)
        once = replace(GREEDY, max_tokens=1)
        at_work.run(GenerationRequest(SYSTEM, once), GenerationRequest(SYSTEM, once, final(tiny)))
    assert sorted(len(row.tokens) for row in computed) == [1, len(SYSTEM)]


def test_arms_share_the_prompt_below_the_divergence_layer(tiny: LoadedModel):
    tokens_at = [0] * len(tiny.anatomy.layers)
    with running(tiny) as at_work, ExitStack() as counting:
        for layer, parts in enumerate(tiny.anatomy.layers):

            def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...], layer: int = layer) -> None:
                tokens_at[layer] += args[0].shape[1]

            counting.callback(parts.head_output.register_forward_pre_hook(count).remove)
        once = replace(GREEDY, max_tokens=1)
        parting = (UNSTEERED, late(tiny, 1), late(tiny, 1, 2.0))
        at_work.run(*(GenerationRequest(SYSTEM, once, steering) for steering in parting))
    assert tokens_at == [len(SYSTEM), 3 * len(SYSTEM), 3 * len(SYSTEM)]


def test_sequences_that_arrive_together_wait_for_the_first_to_compute_what_they_share(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    with running(tiny, max_num_batched_tokens=16) as at_work:
        computed = at_work.watch(monkeypatch)
        at_work.run(*(GenerationRequest(SYSTEM, replace(GREEDY, max_tokens=1, seed=seed)) for seed in range(5)))
    assert sum(len(row.tokens) for row in computed) == len(SYSTEM) + 4


def test_prompt_tokens_are_scored_although_they_are_cached(tiny: LoadedModel):
    scoring = replace(GREEDY, max_tokens=0, prompt_logprobs_from=10)
    with running(tiny) as at_work:
        (cold,) = at_work.run(GenerationRequest(SYSTEM, scoring))
        (warm,) = at_work.run(GenerationRequest(SYSTEM, scoring))
    assert cold.prompt_logprobs is not None
    assert warm.prompt_logprobs is not None
    assert [one.logprob for one in warm.prompt_logprobs if one] == pytest.approx(
        [one.logprob for one in cold.prompt_logprobs if one]
    )
    assert len(cold.prompt_logprobs) == len(SYSTEM) - 10


def test_the_youngest_sequences_are_preempted_when_memory_runs_out_and_continue_later(monkeypatch: pytest.MonkeyPatch):
    loaded = build_model("llama")
    prompts = [(seed, *range(seed, seed + 60)) for seed in range(6)]
    warm = [replace(GREEDY, temperature=1.0, seed=seed, max_tokens=150) for seed in range(6)]
    requests = [GenerationRequest(prompt, p) for prompt, p in zip(prompts, warm, strict=True)]
    with running(loaded, max_length=256) as at_work:
        expected = at_work.run(*requests)
    with running(loaded, max_length=256, kv_cache_memory=600 * bytes_per_token(loaded)) as at_work:
        computed = at_work.watch(monkeypatch)
        results = at_work.run(*requests)
    assert [result.tokens for result in results] == [result.tokens for result in expected]
    assert sum(len(row.tokens) > 1 for row in computed) > len(requests)  # some were computed again


def test_kv_cache_memory_too_small_for_one_sequence_is_refused_with_what_to_change():
    with pytest.raises(
        ConfigError, match=r"kv_cache_memory is 0 MiB.*256 tokens takes.*raise it or lower max_model_len"
    ):
        Engine(build_model("llama"), EngineLimits(max_length=256, kv_cache_memory=2**17))


def test_a_new_version_of_a_profile_never_reads_the_kv_cache_of_the_old_one(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    old, new = (steer(build_profile(tiny, "same-name", heads=[(0, 1, scale)])) for scale in (4.0, -3.0))
    expected = {steering: greedy(tiny, SYSTEM, steering) for steering in (old, new)}
    assert expected[old] != expected[new]
    with running(tiny) as at_work:
        at_work.run(GenerationRequest(SYSTEM, GREEDY, old))
        computed = at_work.watch(monkeypatch)
        (answer,) = at_work.run(GenerationRequest(SYSTEM, GREEDY, new))
        assert list(answer.tokens) == expected[new]
        assert computed[0].tokens == list(SYSTEM), "nothing of the prompt is taken from the cache of the old version"
        computed.clear()
        (again,) = at_work.run(GenerationRequest(SYSTEM, GREEDY, old))
        assert list(again.tokens) == expected[old]
        assert len(computed[0].tokens) == 1, "the same version reads its own cache"
