"""Gated sequences generate what two whole passes per token would, and do not change other sequences."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steering_profiles.final_layer_fields import Gate
from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import UNSTEERED
from steering_server.engines.local.ragged import Divergence, OpenGate, SequenceInput, layout_order
from steering_server.generation.requests import GenerationRequest
from tests.builders import build_model, build_profile, every_effect, greedy, steer
from tests.engines.local.running import GREEDY, PROMPTS, running
from tests.engines.local.two_passes import slowly, two_passes, without_gates

FINAL = {"self_only_attention": 1.0, "intercept_scale": 0.7}
HEADS = [(1, 1, 4.0), (2, 0, -2.0)]
LOW, HIGH = 0.05, 0.09
"""A band that contains the top probability of the small models about half of the time."""


def arms(loaded: LoadedModel) -> list[tuple[Profile, ...]]:
    """Gated profiles alone, with scales, beside others, and no profile."""
    heads = build_profile(loaded, "heads", heads=HEADS)
    always = build_profile(loaded, "always", intercept_scale=-0.4, seed=3)
    gated = build_profile(loaded, "gated", **FINAL, gate=(LOW, HIGH))
    half = build_profile(loaded, "half", self_only_attention=0.5, gate=(0.0, 0.06))
    with_heads = build_profile(loaded, "with-heads", heads=[(1, 1, -3.0), (2, 0, 2.0)], **FINAL, gate=(LOW, HIGH))
    late = build_profile(loaded, "late", heads=[(2, 3, 3.0)], **FINAL, gate=(LOW, HIGH))
    return [(), (gated,), (heads,), (half,), (with_heads,), (gated, always), (always,), (late,), (heads, gated)]


@pytest.mark.parametrize(
    "limits", [{}, {"max_num_batched_tokens": 4}, {"max_num_seqs": 3}], ids=["whole", "chunked", "few slots"]
)
def test_gated_sequences_of_a_mixed_batch_generate_what_two_passes_a_token_would(
    tiny: LoadedModel, limits: dict[str, int]
):
    opened: list[bool] = []
    asked = [(prompt, arm) for prompt in PROMPTS[:2] for arm in arms(tiny)]
    with running(tiny, **limits) as at_work:
        apart = at_work.run(*(GenerationRequest(prompt, GREEDY, steer(*arm)) for prompt, arm in asked))
        again = at_work.run(*(GenerationRequest(prompt, GREEDY, steer(*arm)) for prompt, arm in reversed(asked)))
    expected = [
        slowly(tiny, prompt, arm, opened if arm else [], guess=result.tokens)
        for (prompt, arm), result in zip(asked, apart, strict=True)
    ]
    assert [list(result.tokens) for result in apart] == expected
    assert [list(result.tokens) for result in again] == expected[::-1]
    assert 0.2 < sum(opened) / len(opened) < 0.8, "gates that are never or always open prove little"
    ungated = [
        greedy(tiny, prompt, steer(*without_gates(*arm)), guess=found)
        for (prompt, arm), found in zip(asked, expected, strict=True)
    ]
    assert sum(found != other for found, other in zip(expected, ungated, strict=True)) >= 4


@pytest.mark.parametrize("max_num_batched_tokens", [512, 5], ids=["whole", "chunked"])
def test_every_token_of_a_prompt_is_scored_under_the_gate(tiny: LoadedModel, max_num_batched_tokens: int):
    prompt = tuple((7 * i) % 250 for i in range(40))
    with running(tiny, max_num_batched_tokens=max_num_batched_tokens) as at_work:
        scoring = replace(GREEDY, max_tokens=0, prompt_logprobs_from=3)
        results = at_work.run(*(GenerationRequest(prompt, scoring, steer(*arm)) for arm in arms(tiny)))
    for arm, result in zip(arms(tiny), results, strict=True):
        logits, is_open = two_passes(tiny, prompt, arm)
        assert any(is_open) == any(profile.final_layer.gate is not None for profile in arm)
        logprobs = logits.float().log_softmax(dim=-1)
        expected = [float(logprobs[at - 1, prompt[at]]) for at in range(3, len(prompt))]
        assert [one.logprob for one in result.prompt_logprobs or () if one] == pytest.approx(expected, abs=1e-5)


def test_a_gate_that_is_always_open_has_no_effect_and_one_that_never_opens_gives_the_baseline(tiny: LoadedModel):
    ungated, opened, shut = (steer(build_profile(tiny, **FINAL, gate=gate)) for gate in (None, (0.0, 1.0), (0.0, 1e-9)))
    with running(tiny) as at_work:
        scoring = replace(GREEDY, logprobs=2)
        requests = [GenerationRequest(PROMPTS[1], scoring, s) for s in (UNSTEERED, ungated, opened, shut)]
        plain, steered, found_open, found_shut = at_work.run(*requests)
    assert plain.tokens != steered.tokens
    assert (found_open.tokens, found_shut.tokens) == (steered.tokens, plain.tokens)
    assert found_shut.logprobs == plain.logprobs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gate_that_never_opens_leaves_every_logit_as_it_is_without_it(dtype: torch.dtype):
    """The gate passes in the same batch change no bit of any sequence."""
    loaded = build_model("llama", dtype=dtype)
    shut = steer(build_profile(loaded, **FINAL, gate=(0.0, 1e-9)))
    found = []
    for steering in (UNSTEERED, shut):
        with running(loaded) as at_work:
            results = at_work.run(*(GenerationRequest(p, replace(GREEDY, logprobs=3), steering) for p in PROMPTS))
        found.append([(result.tokens, result.logprobs) for result in results])
    assert found[0] == found[1]


def test_only_the_last_layer_is_computed_twice_and_only_for_wanted_logits(tiny: LoadedModel):
    gated = steer(build_profile(tiny, **FINAL, gate=(0.0, 1.0)))
    tokens_at = [0] * len(tiny.anatomy.layers)
    with running(tiny, max_num_batched_tokens=16) as at_work, ExitStack() as counting:
        for layer, parts in enumerate(tiny.anatomy.layers):

            def count(module: torch.nn.Module, args: tuple[Tensor, ...], layer: int = layer) -> None:
                tokens_at[layer] += args[0].shape[1]

            counting.callback(parts.head_output.register_forward_pre_hook(count).remove)
        at_work.run(GenerationRequest(PROMPTS[3], replace(GREEDY, max_tokens=4), gated))
    assert tokens_at == [len(PROMPTS[3]) + 3, len(PROMPTS[3]) + 3, len(PROMPTS[3]) + 3 + 4]


def test_a_gated_arm_shares_the_whole_prompt_with_the_baseline(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    gated = steer(build_profile(tiny, **FINAL, gate=(0.0, 1.0)))
    with running(tiny) as at_work:
        computed = at_work.watch(monkeypatch)
        once = replace(GREEDY, max_tokens=1)
        at_work.run(GenerationRequest(PROMPTS[3], once), GenerationRequest(PROMPTS[3], once, gated))
    assert sorted(len(row.tokens) for row in computed) == [1, len(PROMPTS[3])]


def gated_input(slot: int, tokens: int, position: int, logits_for: range, **settings: object) -> SequenceInput:
    return SequenceInput(
        (1,) * tokens, position, slot, 0, logits_for, open_gate=OpenGate(Gate(low=0, high=1), 1), **settings
    )


def test_gate_passes_come_last_whatever_their_length():
    """The inputs before them are cached, also those that diverge at the last layer."""
    inputs = [
        gated_input(0, 2, 3, range(1, 2)),
        gated_input(1, 2, 300, range(2)),
        gated_input(2, 2, 300, range(1, 2), divergence=Divergence(2, 1)),
    ]
    gate_passes = [one.gate_pass(3) for one in inputs]
    order = layout_order([*gate_passes, *inputs])
    assert sorted(order[:3]) == [3, 4, 5]
    assert [(again.tokens, again.position, again.logits_for, again.steering_row) for again in gate_passes] == [
        ((1,), 4, range(1), 1),
        ((1, 1), 300, range(2), 1),
        ((1,), 301, range(1), 1),
    ]


def test_a_gated_sequence_without_wanted_logits_is_computed_once():
    assert gated_input(0, 2, 3, range(2, 2)).gate_pass(3) is None


def test_gated_sequences_release_their_steering_rows(tiny: LoadedModel):
    with running(tiny) as at_work:
        at_work.run(*(GenerationRequest(PROMPTS[0], GREEDY, steer(*arm)) for arm in arms(tiny)))
        assert at_work.engine._runner.steering.table._users == {}


def test_the_final_layer_s_cached_keys_and_values_do_not_matter_under_self_only_attention(tiny: LoadedModel):
    """All of them are NaN before every step, so that any of them that is used makes the result NaN."""
    wholly = [
        every_effect(tiny)["self-only attention"],
        every_effect(tiny)["all"],
        steer(build_profile(tiny, **FINAL, heads=[(2, 1, 3.0)])),
    ]
    expected = [greedy(tiny, PROMPTS[1], steering) for steering in wholly]
    with running(tiny, max_num_batched_tokens=4) as at_work:
        runner = at_work.engine._runner
        run, last = runner.run, runner.kv_cache.layers[-1]

        def poisoned(inputs):
            last.keys.fill_(float("nan"))
            last.values.fill_(float("nan"))
            return run(inputs)

        runner.run = poisoned
        results = at_work.run(*(GenerationRequest(PROMPTS[1], GREEDY, steering) for steering in wholly))
    assert [list(result.tokens) for result in results] == expected
