"""A sequence's tokens and log-probabilities are bit for bit the same alone and in any batch."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_server.engines.local import invariance, kernels
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.kv_cache import bytes_per_token, padded_length
from steering_server.engines.local.prepacking import OneDNNWeight
from steering_server.errors import ConfigError
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from steering_server.limits import EngineLimits
from tests.builders import build_profile, steer
from tests.engines.local.running import Running, running
from tests.families import build_family

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-biases": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {"intermediate_size": 64, "hidden_size": 128},
    "gemma2": {"intermediate_size": 64, "head_dim": 32, "final_logit_softcapping": None},
    "olmo2": {"intermediate_size": 64, "hidden_size": 128},
    "pythia": {"intermediate_size": 64, "hidden_size": 128},
    "gpt2": {"n_inner": 64, "n_embd": 128},
}
"""Sizes of models that run transformers' modules are multiples of 32, as those of nearly all real ones are."""
DTYPES = [torch.float32, torch.bfloat16]
PREPACKED = {dtype: dtype == torch.float32 or kernels.can_multiply(dtype) for dtype in DTYPES}
"""Whether this CPU has matrix products for prepacked weights; without them nothing is promised."""


@cache
def family(case: str, dtype: torch.dtype) -> LoadedModel:
    return build_family(case, dtype=dtype, **FAMILIES[case])


def arms_of(loaded: LoadedModel) -> list[Steering]:
    last = loaded.anatomy.sizes.layers - 1
    heads = build_profile(loaded, "heads", heads=[(0, 1, 1.5), (last, 0, -0.5)], neurons=[(1, 2, 2.0)])
    final = build_profile(loaded, "final", self_only_attention=0.6, intercept_scale=0.7)
    gated = build_profile(loaded, "gated", self_only_attention=1.0, intercept_scale=0.4, gate=(0.0, 0.02))
    return [UNSTEERED, steer(heads), steer(heads, strength=0.5), steer(final), steer(gated)]


def alone(engine: Running, request: GenerationRequest) -> Chunk:
    return engine.run(request)[0]


requests = st.lists(
    st.tuples(
        st.lists(st.integers(1, 60), min_size=1, max_size=40),  # the prompt
        st.integers(0, 4),  # the arm
        st.booleans(),  # greedy or sampled
        st.integers(0, 3),  # alternatives
        st.booleans(),  # log-probabilities of the prompt
    ),
    min_size=2,
    max_size=6,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", FAMILIES)
@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    asked=requests,
    limits=st.fixed_dictionaries(
        {
            "prefix_cache": st.booleans(),
            "max_num_batched_tokens": st.sampled_from([3, 8, 512]),
            "max_num_batched_tokens_mixed": st.sampled_from([2, 128]),
            "max_num_seqs": st.sampled_from([2, 3, 64]),
        }
    ),
)
def test_a_sequence_gets_the_same_answer_alone_and_in_a_batch(
    case: str, dtype: torch.dtype, asked: Sequence[tuple[list[int], int, bool, int, bool]], limits: dict[str, Any]
):
    loaded = family(case, dtype)
    arms = arms_of(loaded)
    generations = [
        GenerationRequest(
            tuple(prompt),
            SamplingParams(
                max_tokens=6,
                temperature=0.0 if greedy else 1.3,
                top_p=0.9 if len(prompt) % 2 else 1.0,
                seed=len(prompt),
                logprobs=alternatives,
                prompt_logprobs_from=0 if scored else None,
            ),
            arms[arm],
        )
        for prompt, arm, greedy, alternatives, scored in asked
    ]
    with running(loaded) as engine:
        promise = engine.engine.batch_invariance
        if not PREPACKED[dtype]:
            assert not promise.holds
            assert promise.reason is not None
            assert "are not those of prepacked layers" in promise.reason
            return
        assert promise.holds, promise.reason
        expected = [alone(engine, generation) for generation in generations]
    with running(loaded, **limits) as engine:
        assert engine.run(*generations) == expected
        assert engine.run(*reversed(generations)) == expected[::-1]  # now with what the cache holds


def test_preemption_does_not_change_an_answer():
    loaded = family("llama", torch.bfloat16)
    sampling = SamplingParams(max_tokens=40, temperature=0.8, seed=1, logprobs=2)
    generations = [GenerationRequest((5 + n,) * 30, sampling, UNSTEERED) for n in range(6)]
    with running(loaded) as engine:
        expected = [alone(engine, generation) for generation in generations]
    one_sequence = bytes_per_token(loaded) * padded_length(loaded, 128)
    with running(loaded, kv_cache_memory=2 * one_sequence, max_length=128) as engine:
        assert engine.run(*generations) == expected


def test_logits_are_not_rounded_to_bfloat16(embedded: LoadedModel):
    prompt = tuple(embedded.tokenizer("The capital of France is")["input_ids"])
    with running(embedded) as engine:
        sampling = SamplingParams(max_tokens=1, temperature=0, logprobs=20)
        answer = alone(engine, GenerationRequest(prompt, sampling, UNSTEERED))
    differences = [one - answer.logprobs[0].top[0][1] for _, one in answer.logprobs[0].top[1:]]
    steps = [abs(difference * 16 - round(difference * 16)) for difference in differences]
    assert max(steps) > 0.01, "all differences are multiples of 1/16, the step of bfloat16 between 8 and 16"


def test_an_engine_without_compiled_kernels_promises_no_invariance(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "UNAVAILABLE", "they were not built")
    with running(family("llama", torch.float32)) as engine:
        assert not engine.engine.batch_invariance.holds
        assert engine.engine.batch_invariance.reason == "they were not built"


def test_an_engine_that_must_be_invariant_does_not_start_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "UNAVAILABLE", "they were not built")
    loaded = build_family("llama")
    before = loaded.model.config._attn_implementation
    with pytest.raises(ConfigError, match=r"batch_invariant is require, .* they were not built"):
        Engine(loaded, EngineLimits(batch_invariant="require"))
    assert loaded.model.config._attn_implementation == before


@pytest.mark.parametrize(("case", "size"), [("gpt2", "size of heads (8)"), ("gemma2", "vocabulary")])
def test_sizes_that_fill_no_vector_are_not_promised_to_be_invariant(case: str, size: str):
    with running(build_family(case, dtype=torch.float32)) as engine:
        assert size in str(engine.engine.batch_invariance.reason)


def test_rotary_embeddings_that_depend_on_the_batch_are_not_promised_to_be_invariant():
    loaded = build_family("llama", dtype=torch.float32)
    loaded.model.config.rope_parameters["rope_type"] = "dynamic"
    with running(loaded) as engine:
        assert engine.engine.batch_invariance.reason is not None
        assert "rotary embeddings (dynamic)" in engine.engine.batch_invariance.reason


def test_linear_layers_that_no_padding_helps_are_not_promised_to_be_invariant(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(invariance, "_differing_sizes", lambda linear, dtype: {3, 64})
    monkeypatch.setattr(invariance, "_differing", {})
    with running(family("llama", torch.float32)) as engine:
        assert not engine.engine.batch_invariance.holds
        assert "products of its linear layers" in str(engine.engine.batch_invariance.reason)


def test_products_that_are_not_measured_are_not_promised_to_be_invariant():
    with running(build_family("mixtral", dtype=torch.float32, hidden_size=128, intermediate_size=64)) as engine:
        assert not engine.engine.batch_invariance.holds
        assert "MixtralExperts" in str(engine.engine.batch_invariance.reason)


def test_inputs_are_padded_as_far_as_their_linear_layer_needs_it(monkeypatch: pytest.MonkeyPatch):
    loaded = family("llama", torch.float32)
    neurons = loaded.anatomy.sizes.neurons
    needs = {neurons: {1, 3, 5}}
    monkeypatch.setattr(invariance, "_differing_sizes", lambda linear, dtype: needs.get(linear.shape[1], {1}))
    monkeypatch.setattr(invariance, "_differing", {})
    with running(loaded) as engine:
        assert engine.engine.batch_invariance.holds
        computed: dict[int, list[int]] = {}
        multiply = kernels.PackedWeight.multiply

        def counting(weight: kernels.PackedWeight, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            computed.setdefault(x.shape[-1], []).append(x.shape[-2])
            return multiply(weight, x, bias)

        monkeypatch.setattr(kernels.PackedWeight, "multiply", counting)
        engine.run(GenerationRequest((5,), SamplingParams(max_tokens=3, temperature=0), UNSTEERED))
    fewest = {width: min(rows) for width, rows in computed.items()}
    assert fewest.pop(neurons) == 8
    assert set(fewest.values()) == {2}


def test_products_of_onednn_are_padded_until_a_sequence_gets_the_same_answer_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "can_multiply", lambda dtype: False)
    loaded = build_family("llama", dtype=torch.float32)
    sampling = SamplingParams(max_tokens=8, temperature=0, logprobs=3)
    generations = [
        GenerationRequest((5 + n,) * (1 + 7 * n), sampling, arm) for n in range(4) for arm in arms_of(loaded)
    ]
    with running(loaded) as engine:
        assert isinstance(engine.engine._runner.linears.all[0].weight, OneDNNWeight)
        assert engine.engine.batch_invariance.holds
        expected = [alone(engine, generation) for generation in generations]
    with running(loaded) as engine:
        assert engine.run(*generations) == expected


def test_invariance_can_be_switched_off():
    with running(family("llama", torch.float32), batch_invariant="off") as engine:
        assert not engine.engine.batch_invariance.holds
