"""The engine generates what the model would for every sequence alone, however sequences are batched and steered."""

import threading
from dataclasses import replace
from queue import Queue
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules

from steering_profiles.models import LoadedModel
from steering_profiles.steering import Steering
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.sequence import Emit
from steering_server.errors import ConfigError, EngineError, EngineStopped, Overloaded
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams, TextDelta
from steering_server.limits import EngineLimits
from tests.builders import FAMILIES, build_model, build_profile, every_effect, greedy, steer
from tests.engines.local.running import GREEDY, PROMPTS, running


@pytest.mark.parametrize(
    "limits", [{}, {"max_num_batched_tokens": 4}, {"max_num_seqs": 2}], ids=["whole", "chunked", "few slots"]
)
def test_a_batch_generates_what_the_model_would_for_each_sequence(tiny: LoadedModel, limits: dict[str, int]):
    expected = [greedy(tiny, prompt) for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens in expected}) == len(expected)
    with running(tiny, **limits) as at_work:
        results = at_work.run(*(GenerationRequest(prompt, GREEDY) for prompt in PROMPTS))
    assert [list(result.tokens) for result in results] == expected


def test_sequences_of_very_different_lengths_generate_together(tiny: LoadedModel):
    prompts = [
        tuple((start + 7 * i) % 250 for i in range(length)) for start, length in enumerate([3, 255, 257, 400, 9])
    ]
    expected = [greedy(tiny, prompt, tokens=4) for prompt in prompts]
    with running(tiny) as at_work:
        results = at_work.run(*(GenerationRequest(prompt, replace(GREEDY, max_tokens=4)) for prompt in prompts))
    assert [list(result.tokens) for result in results] == expected


def test_a_batch_mixes_profiles_strengths_and_unsteered_sequences(tiny: LoadedModel):
    effects = every_effect(tiny)
    expected = {name: greedy(tiny, PROMPTS[1], steering) for name, steering in effects.items()}
    assert len({tuple(tokens) for tokens in expected.values()}) >= len(effects) - 1
    with running(tiny, max_num_batched_tokens=16) as at_work:
        results = at_work.run(*(GenerationRequest(PROMPTS[1], GREEDY, steering) for steering in effects.values()))
    assert {name: list(result.tokens) for name, result in zip(effects, results, strict=True)} == expected


def test_the_embedded_model_generates_the_same_tokens_as_its_own_generate(embedded: LoadedModel):
    ids = embedded.tokenizer("The capital of France is", return_tensors="pt")
    generated = embedded.model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    with running(embedded, max_length=128) as at_work:
        prompt = tuple(ids["input_ids"][0].tolist())
        (result,) = at_work.run(GenerationRequest(prompt, replace(GREEDY, max_tokens=8)))
    assert list(result.tokens) == generated.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logprobs_are_the_models_up_to_rounding_in_every_dtype(dtype: torch.dtype):
    loaded = build_model("llama", dtype=dtype)
    with running(loaded) as at_work:
        results = at_work.run(*(GenerationRequest(prompt, replace(GREEDY, logprobs=0)) for prompt in PROMPTS))
    rounding = 40 * torch.finfo(dtype).eps
    for prompt, result in zip(PROMPTS, results, strict=True):
        logits = loaded.model(torch.tensor([[*prompt, *result.tokens]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.float().log_softmax(-1).gather(-1, torch.tensor(result.tokens).unsqueeze(-1)).squeeze(-1)
        assert [one.logprob for one in result.logprobs] == pytest.approx(expected.tolist(), abs=rounding)


def test_a_model_offloaded_by_accelerate_generates_the_same(tiny: LoadedModel):
    """Its weights are moved to the device only while they are used, as with offloading to disk or main memory."""
    steering = every_effect(tiny)["all"]
    expected = [greedy(tiny, prompt, steering) for prompt in PROMPTS]
    cpu_offload(tiny.model, torch.device("cpu"))
    try:
        with running(tiny) as at_work:
            results = at_work.run(*(GenerationRequest(prompt, GREEDY, steering) for prompt in PROMPTS))
    finally:
        remove_hook_from_submodules(tiny.model)
    assert [list(result.tokens) for result in results] == expected


def test_a_small_request_does_not_wait_for_all_of_a_large_one_that_came_before():
    ended: list[str] = []
    over = threading.Event()

    def reporter(name: str) -> Emit:
        def emit(index: int, report: Chunk | EngineError) -> None:
            assert isinstance(report, Chunk), report
            if report.finish_reason:
                ended.append(name)
                if len(ended) == 9:
                    over.set()

        return emit

    with running(build_model("llama", dtype=torch.float32), max_num_seqs=2) as at_work:
        at_work.engine.submit([GenerationRequest(PROMPTS[0], GREEDY)] * 8, reporter("large"))
        at_work.engine.submit([GenerationRequest(PROMPTS[1], GREEDY)], reporter("small"))
        assert over.wait(60)
    assert ended.index("small") < 5


def test_a_seeded_sequence_draws_the_same_tokens_alone_and_in_a_batch(tiny: LoadedModel):
    warm = SamplingParams(max_tokens=20, temperature=1.5, top_p=0.9, seed=7)
    other = GenerationRequest(PROMPTS[3], replace(warm, seed=1))
    with running(tiny) as at_work:
        (alone,) = at_work.run(GenerationRequest(PROMPTS[0], warm))
        among = at_work.run(other, GenerationRequest(PROMPTS[0], warm), other)[1]
        (reseeded,) = at_work.run(GenerationRequest(PROMPTS[0], replace(warm, seed=8)))
    assert alone.tokens == among.tokens != reseeded.tokens


@pytest.mark.parametrize("max_num_batched_tokens", [512, 5])
def test_prompt_tokens_are_scored_from_the_given_position(tiny: LoadedModel, max_num_batched_tokens: int):
    prompt = PROMPTS[1]
    expected = tiny.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
    for start in (0, 1, 6):
        scoring = SamplingParams(max_tokens=0, prompt_logprobs_from=start)
        with running(tiny, max_num_batched_tokens=max_num_batched_tokens) as at_work:
            (result,) = at_work.run(GenerationRequest(prompt, scoring))
        scored = list(result.prompt_logprobs or ())
        assert len(scored) == len(prompt) - start
        if start == 0:
            assert scored.pop(0) is None
        for position, one in enumerate(scored, start=max(start, 1)):
            assert one is not None
            assert one.token == prompt[position]
            assert one.logprob == pytest.approx(expected[position - 1, prompt[position]].item(), abs=1e-5)


def test_generation_stops_at_an_end_token_which_is_reported_without_text(tiny: LoadedModel):
    expected = greedy(tiny, PROMPTS[0])
    with running(tiny) as at_work:
        at_work.engine.end_tokens = frozenset({expected[5]})
        (result,) = at_work.run(GenerationRequest(PROMPTS[0], replace(GREEDY, logprobs=2)))
    assert list(result.tokens) == expected[: expected.index(expected[5]) + 1]
    assert [one.token for one in result.logprobs] == list(result.tokens)
    assert result.deltas[-1] == TextDelta()
    assert result.finish_reason == "stop"


def test_min_tokens_and_ignore_eos_delay_and_ignore_the_end(tiny: LoadedModel):
    expected = greedy(tiny, PROMPTS[0])
    with running(tiny) as at_work:
        at_work.engine.end_tokens = frozenset({expected[0]})
        ended, put_off, ignored = at_work.run(
            GenerationRequest(PROMPTS[0], GREEDY),
            GenerationRequest(PROMPTS[0], replace(GREEDY, min_tokens=4)),
            GenerationRequest(PROMPTS[0], replace(GREEDY, ignore_eos=True)),
        )
    assert ended.tokens == (expected[0],)
    assert len(put_off.tokens) > 4
    assert expected[0] not in put_off.tokens[:4]
    assert list(ignored.tokens) == expected


def test_each_token_has_logprobs_with_the_requested_alternatives(tiny: LoadedModel):
    with running(tiny) as at_work:
        (result,) = at_work.run(GenerationRequest(PROMPTS[0], replace(GREEDY, logprobs=3)))
    assert [one.token for one in result.logprobs] == list(result.tokens)
    assert all(one.top[0] == (one.token, one.logprob) and len(one.top) == 3 for one in result.logprobs)


def test_a_cancelled_group_frees_its_slot_and_never_finishes():
    loaded = build_model("llama", dtype=torch.float32)
    with running(loaded, max_num_seqs=1) as at_work:
        begun, reports = threading.Event(), []

        def emit(index: int, report: Chunk | EngineError) -> None:
            reports.append(report)
            begun.set()

        group = at_work.engine.submit([GenerationRequest(PROMPTS[0], replace(GREEDY, max_tokens=500))], emit)
        assert begun.wait(30)
        at_work.engine.cancel(group)
        (result,) = at_work.run(GenerationRequest(PROMPTS[0], GREEDY))
        assert len(result.tokens) == 12
        assert not any(isinstance(report, EngineError) or report.finish_reason for report in reports)


def test_requests_beyond_the_queue_are_refused_and_accepted_ones_answered():
    loaded = build_model("llama", dtype=torch.float32)
    with running(loaded, max_num_seqs=1, max_queue=1) as at_work:
        request = GenerationRequest(PROMPTS[0], GREEDY)
        with pytest.raises(Overloaded, match="the queue holds 2"):
            at_work.engine.submit([request] * 3, lambda index, report: None)
        assert len(at_work.run(request)) == 1


def test_sequences_of_a_request_that_was_let_in_are_not_refused_by_a_full_queue():
    with running(build_model("llama", dtype=torch.float32), max_num_seqs=1, max_queue=0) as at_work:
        ended: Queue[int] = Queue()

        def emit(index: int, report: Any) -> None:
            if isinstance(report, EngineError) or report.finish_reason:
                ended.put(index)

        at_work.engine.submit([GenerationRequest(PROMPTS[0], GREEDY)] * 3, emit, admitted=True)
        assert sorted(ended.get(timeout=30) for _ in range(3)) == [0, 1, 2]


def test_output_that_is_not_finite_fails_its_own_request_only():
    loaded = build_model("llama", dtype=torch.float16)
    exploding = steer(build_profile(loaded, heads=[(layer, head, 3e4) for layer in range(3) for head in range(4)]))
    with running(loaded) as at_work:
        with pytest.raises(EngineError, match="not finite"):
            at_work.run(
                GenerationRequest(PROMPTS[0], GREEDY, Steering(tuple(replace(one, strength=10.0) for one in exploding)))
            )
        assert at_work.run(GenerationRequest(PROMPTS[0], GREEDY))[0].finish_reason == "length"


def test_a_failed_sequence_leaves_nothing_for_the_next_user_of_its_slot():
    loaded = build_model("llama", dtype=torch.float16)
    exploding = steer(build_profile(loaded, heads=[(layer, head, 3e4) for layer in range(3) for head in range(4)]))
    with running(loaded) as at_work:
        rows = [GenerationRequest(prompt, GREEDY) for prompt in PROMPTS]
        before = at_work.run(*rows)
        long = GenerationRequest((7,) * 200, GREEDY, Steering(tuple(replace(one, strength=10.0) for one in exploding)))
        with pytest.raises(EngineError, match="not finite"):
            at_work.run(long, long)
        assert [row.tokens for row in at_work.run(*rows)] == [row.tokens for row in before]


def test_a_failing_receiver_does_not_stop_the_engine():
    loaded = build_model("llama", dtype=torch.float32)

    def gone(index: int, report: Chunk | EngineError) -> None:
        raise RuntimeError("the event loop is closed")

    with running(loaded, max_num_seqs=1) as at_work:
        at_work.engine.submit([GenerationRequest(PROMPTS[0], GREEDY)], gone)
        assert at_work.run(GenerationRequest(PROMPTS[0], GREEDY))[0].finish_reason == "length"


@pytest.mark.parametrize("left", [0, 3])
def test_sequences_far_apart_and_close_together_attend_alike(tiny: LoadedModel, left: int):
    """Sequences that end early leave holes between the slots of those that continue."""
    expected = greedy(tiny, PROMPTS[1], tokens=30)
    with running(tiny) as at_work:
        short = [GenerationRequest(PROMPTS[0], replace(GREEDY, max_tokens=1 + i)) for i in range(6)]
        long = GenerationRequest(PROMPTS[1], replace(GREEDY, max_tokens=30))
        results = at_work.run(*short[:left], long, *short[left:], long)
    assert list(results[left].tokens) == list(results[-1].tokens) == expected


def test_a_failed_step_fails_its_requests_and_the_engine_continues(monkeypatch: pytest.MonkeyPatch):
    loaded = build_model("llama", dtype=torch.float32)
    with running(loaded) as at_work:
        with monkeypatch.context() as broken:
            broken.setattr(at_work.engine._runner, "run", lambda inputs: 1 / 0)
            with pytest.raises(EngineError, match="division by zero"):
                at_work.run(GenerationRequest(PROMPTS[0], GREEDY))
        assert at_work.run(GenerationRequest(PROMPTS[0], GREEDY))[0].finish_reason == "length"


def test_two_engines_cannot_use_the_same_model():
    loaded = build_model("llama", dtype=torch.float32)
    expected = greedy(loaded, PROMPTS[0])
    with running(loaded) as at_work:
        with pytest.raises(EngineError, match="another engine runs on this model"):
            Engine(loaded, EngineLimits())
        (result,) = at_work.run(GenerationRequest(PROMPTS[0], GREEDY))
    assert list(result.tokens) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_closing_restores_the_model(family: str):
    loaded = build_model(family)
    before = loaded.model(torch.tensor([PROMPTS[1]])).logits
    with running(loaded) as at_work:
        at_work.run(GenerationRequest(PROMPTS[0], GREEDY, every_effect(loaded)["all"]))
    assert torch.equal(loaded.model(torch.tensor([PROMPTS[1]])).logits, before)


def test_closing_fails_waiting_requests():
    loaded = build_model("llama", dtype=torch.float32)
    engine = Engine(loaded, EngineLimits())
    reports: list[Chunk | EngineError] = []
    engine.submit([GenerationRequest(PROMPTS[0], GREEDY)], lambda index, report: reports.append(report))
    engine.close()
    assert [type(report) for report in reports] == [EngineStopped]
    with pytest.raises(EngineStopped, match="shutting down"):
        engine.submit([GenerationRequest(PROMPTS[0], GREEDY)], lambda index, report: None)


def test_a_kv_cache_larger_than_memory_is_refused_with_what_to_lower():
    loaded = build_model("llama", dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"GiB of KV cache.*max_num_seqs"):
        Engine(loaded, EngineLimits(max_num_seqs=10**9))
    assert torch.isfinite(loaded.model(torch.tensor([PROMPTS[0]])).logits).all()
