"""The engine runs every architecture family as transformers does, or says at start why it does not."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import UNSTEERED, Steering, attach
from steering_server.engines.local import kernels, layer_stack, torch_attention
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.kv_cache import LayerKVCache
from steering_server.engines.local.layer_stack import Stage
from steering_server.errors import ConfigError, EngineError
from steering_server.generation.requests import GenerationRequest
from steering_server.limits import EngineLimits
from tests.builders import build_profile, greedy, steer
from tests.engines.local.running import GREEDY, PROMPTS, running
from tests.engines.local.two_passes import slowly
from tests.families import CASES, WINDOW, build_family

REFUSED = ("falcon-rw",)
ASKED = PROMPTS[1:3]
"""Prompts of gated sequences, which take longer to check."""
SERVED = [case for case in CASES if case not in REFUSED]


@torch.no_grad()
def generated(loaded: LoadedModel, prompt: Sequence[int]) -> tuple[int, ...]:
    """Tokens that transformers' ``generate()`` returns for a prompt."""
    output = loaded.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=GREEDY.max_tokens,
        min_new_tokens=GREEDY.max_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return tuple(output[0, len(prompt) :].tolist())


@pytest.fixture(params=["compiled", "pytorch", "by products"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Ways to compute, and the type in which they are compared with transformers.

    The compiled kernels; PyTorch's fused attention, used for few tokens, and its products, for many.
    """
    if request.param == "compiled":
        return torch.float32
    monkeypatch.setattr(kernels, "UNAVAILABLE", "this test goes without them")
    if request.param == "by products":
        monkeypatch.setattr(torch_attention, "_MANY_SEQUENCES", 2)
        monkeypatch.setattr(torch_attention, "_LARGE_CHUNK", 1)
        monkeypatch.setattr(torch_attention, "_TILE", 5)
    return torch.float64


@pytest.mark.parametrize("case", SERVED)
def test_a_mixed_batch_generates_what_transformers_does_for_each_alone(case: str, dtype: torch.dtype):
    loaded = build_family(case, dtype=dtype)
    last = loaded.anatomy.sizes.layers - 1
    heads = steer(build_profile(loaded, "heads", heads=[(0, 1, 3.0), (1, 0, -1.0), (last, 3, 2.5)]))
    final = steer(build_profile(loaded, "final", self_only_attention=1.0, intercept_scale=0.7))
    arms = [UNSTEERED, heads, final]
    requests = [GenerationRequest(prompt, GREEDY, arm) for arm in arms for prompt in PROMPTS]
    with running(loaded) as engine:
        assert (engine.engine._runner.kv_cache.kernels_refused is None) == (dtype == torch.float32)
        answers = [chunk.tokens for chunk in engine.run(*requests)]
    assert answers[: len(PROMPTS)] == [generated(loaded, prompt) for prompt in PROMPTS]
    assert answers == greedy_answers(loaded, requests, answers)
    assert len(set(answers)) > 2 * len(PROMPTS), "the prompts and arms hardly differ"


def greedy_answers(
    loaded: LoadedModel, requests: Sequence[GenerationRequest], guesses: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    """Greedy completions by the stock model."""
    return [
        tuple(greedy(loaded, request.prompt, request.steering, guess=guess))
        for request, guess in zip(requests, guesses, strict=True)
    ]


def gate_for(loaded: LoadedModel, steering: Steering) -> tuple[float, float]:
    """A band that contains half of the top probabilities generated under ``steering``."""
    handle, tops = attach(loaded), []
    for prompt in ASKED:
        text = [*prompt, *greedy(loaded, prompt, steering)]
        with torch.no_grad(), handle.applied([steering]):
            logits = loaded.model(torch.tensor([text]), use_cache=False).logits[0, len(prompt) - 1 :]
        tops += logits.float().softmax(dim=-1).amax(dim=-1).tolist()
    handle.remove()
    return 0.0, round(statistics.median(tops), 4)


@pytest.mark.parametrize("case", SERVED)
def test_gated_sequences_of_a_mixed_batch_generate_what_two_passes_a_token_would(case: str, dtype: torch.dtype):
    loaded = build_family(case, dtype=dtype)
    last = loaded.anatomy.sizes.layers - 1
    heads = build_profile(loaded, "heads", heads=[(1, 0, -1.0), (last, 3, 2.5)])
    whole, half = (
        {"self_only_attention": 1.0, "intercept_scale": 0.7},
        {"self_only_attention": 0.5, "intercept_scale": -0.4},
    )
    arms: list[tuple[Profile, ...]] = [()]
    for effects, beside in ((whole, ()), (half, (heads,))):
        gate = gate_for(loaded, steer(*beside))
        arms.append((build_profile(loaded, "gated", **effects, gate=gate), *beside))
    opened: list[bool] = []
    asked = [(prompt, arm) for prompt in ASKED for arm in arms]
    with running(loaded) as engine:
        requests = [GenerationRequest(prompt, GREEDY, steer(*arm)) for prompt, arm in asked]
        answers = [answer.tokens for answer in engine.run(*requests)]
    assert answers == [
        tuple(slowly(loaded, prompt, arm, opened if arm else [], guess=answer))
        for (prompt, arm), answer in zip(asked, answers, strict=True)
    ]
    assert 0.1 < sum(opened) / len(opened) < 0.9, "gates that are never or always open prove little"
    assert len(set(answers)) > 3, "the prompts and arms hardly differ"


@pytest.mark.parametrize("case", SERVED)
def test_self_only_attention_skips_the_attention_of_the_last_layer(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """They generate the expected tokens while any attention computed in the last layer fails."""
    loaded = build_family(case, dtype=dtype)
    profile = build_profile(loaded, self_only_attention=1.0, intercept_scale=0.7)
    own = steer(profile)
    requests = [GenerationRequest(prompt, GREEDY, own) for prompt in PROMPTS]
    with running(loaded, max_num_batched_tokens=8) as engine:
        refuse_last_layer(engine.engine, monkeypatch)
        answers = [answer.tokens for answer in engine.run(*requests)]
        for beside in ([own, UNSTEERED], [steer(profile, strength=0.99)]):  # others still compute it
            with pytest.raises(EngineError, match="attended for"):
                engine.run(*(GenerationRequest(PROMPTS[1], GREEDY, steering) for steering in beside))
    assert answers == greedy_answers(loaded, requests, answers)


def refuse_last_layer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make any attention computed in the last layer fail."""
    last = engine._runner.kv_cache.layers[-1]

    def refused(at: int, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def attend(*args: Any) -> Tensor:
            state = args[at]
            cached = state.keys if isinstance(state, LayerKVCache) else state
            if cached.untyped_storage().data_ptr() == last.keys.untyped_storage().data_ptr():
                raise EngineError("the last layer attended for something")
            return compute(*args)

        return attend

    def compute_layers(layers: int, step: int, first: int, end: int) -> None:
        index = len(engine._runner.kv_cache.layers) - 1
        attends = first <= len(Stage) * index < end
        if attends and layer_stack._Step.from_address(step).silent_layer != index:
            raise EngineError("the last layer attended for something")
        computed(layers, step, first, end)

    computed = kernels.compute_layers
    monkeypatch.setattr(kernels, "compute_layers", compute_layers)
    monkeypatch.setattr(kernels, "attend", refused(1, kernels.attend))
    monkeypatch.setattr(torch_attention, "_prefill", refused(1, torch_attention._prefill))
    monkeypatch.setattr(torch_attention, "_decode", refused(1, torch_attention._decode))


def test_the_tested_prompts_are_longer_than_the_window():
    assert max(len(prompt) for prompt in PROMPTS) > 2 * WINDOW
    assert min(len(prompt) for prompt in PROMPTS) < WINDOW


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_the_engine_cannot_run_is_refused_with_the_reason(case: str):
    loaded = build_family(case)
    before = loaded.model.config._attn_implementation
    with pytest.raises(ConfigError, match="computes attention by itself"):
        Engine(loaded, EngineLimits())
    assert loaded.model.config._attn_implementation == before


@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("position", [0, 7])
@pytest.mark.parametrize("tokens", [1, 13])
def test_every_pytorch_attention_path_applies_the_window_and_the_softcap(
    tokens: int, position: int, cap: float | None, window: int | None, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    query = torch.randn(4, tokens, 8, dtype=torch.float64)
    key, value = torch.randn(2, 2, position + tokens, 8, dtype=torch.float64)
    scores = torch.einsum("htk,hsk->hts", query, key.repeat_interleave(2, dim=0)) * 0.5
    scores = scores if cap is None else (scores / cap).tanh() * cap
    at, of = torch.arange(position, position + tokens).unsqueeze(-1), torch.arange(position + tokens)
    seen = (of <= at) & (of > at - (window or 1000))
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    expected = torch.einsum("hts,hsk->thk", weights, value.repeat_interleave(2, dim=0))
    options = kernels.ScoreOptions(0.5, window, cap)
    torch.testing.assert_close(torch_attention._prefill(query, key, value, position, options), expected)
    monkeypatch.setattr(torch_attention, "_TILE", 5)
    torch.testing.assert_close(torch_attention._prefill_in_tiles(query, key, value, position, options), expected)
