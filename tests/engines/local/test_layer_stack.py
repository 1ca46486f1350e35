"""All layers in one call compute, bit for bit, what one call of each operator does."""

import ctypes

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED
from steering_server.engines.local import fused, layer_stack
from steering_server.engines.local.kernels import PackedWeight, _native
from steering_server.engines.local.layer_stack import Placement, Stage
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from tests.builders import build_profile, steer
from tests.engines.local.running import PROMPTS, running
from tests.families import CASES, build_family

FUSED = [case for case in CASES if build_family(case).anatomy.family.gated_block is not None]
WITH_LOGPROBS = SamplingParams(max_tokens=12, temperature=0, logprobs=5)


def test_the_structs_are_those_of_the_compiled_kernels():
    assert ctypes.sizeof(layer_stack._Layer) == _native.LAYER_BYTES
    assert ctypes.sizeof(layer_stack._Step) == _native.STEP_BYTES


def requests_of(loaded: LoadedModel) -> list[GenerationRequest]:
    """Requests for prompts beside each other with every part of steering, whose arms share layers."""
    last = loaded.anatomy.sizes.layers - 1
    profiles = [
        build_profile(loaded, "heads", heads=[(0, 1, 3.0), (last, 3, 2.5)]),
        build_profile(loaded, "neurons", neurons=[(0, 2, 3.0), (last, 5, -2.0)]),
        build_profile(loaded, "half", self_only_attention=0.5, intercept_scale=-0.4),
        build_profile(loaded, "whole", self_only_attention=1.0, intercept_scale=0.7),
        build_profile(loaded, "gated", self_only_attention=1.0, gate=(0.0, 0.5)),
    ]
    arms = [UNSTEERED, *(steer(profile) for profile in profiles)]
    return [GenerationRequest(prompt, WITH_LOGPROBS, arm) for prompt in PROMPTS for arm in arms]


def answers_of(case: str, dtype: torch.dtype, *, stacked: bool) -> list[Chunk]:
    loaded = build_family(case, dtype=dtype)
    with running(loaded, max_num_batched_tokens=16) as engine:
        model = engine.engine._runner._fused
        assert model is not None
        assert (model._stack is not None) == stacked
        return engine.run(*requests_of(loaded))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", FUSED)
def test_one_call_gives_the_bits_of_one_call_an_operator(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    in_one_call = answers_of(case, dtype, stacked=True)
    monkeypatch.setattr(fused, "can_be_stacked", lambda layers: False)

    assert in_one_call == answers_of(case, dtype, stacked=False)


def test_the_answers_to_compare_differ_by_arm():
    answers = answers_of("llama", torch.float32, stacked=True)

    assert len({answer.tokens for answer in answers}) > len(answers) / 2


def test_a_silent_layer_attends_to_nothing():
    loaded = build_family("llama", dtype=torch.float32)
    with running(loaded) as engine:
        runner = engine.engine._runner
        model = runner._fused
        assert model is not None
        stack = model._stack
        assert stack is not None
        heard, silent = (_attended(stack, runner.kv_cache, loaded, silent_layer) for silent_layer in (None, 0))

    assert heard.count_nonzero() > 0
    assert silent.count_nonzero() == 0


def _attended(stack, kv_cache, loaded, silent_layer):
    """Return the heads' outputs of the first layer for three tokens."""
    sizes = loaded.anatomy.sizes
    rotary = torch.ones(3, sizes.head_dim)
    placement = Placement(
        cos=rotary,
        sin=torch.zeros_like(rotary),
        slots=torch.zeros(3, dtype=torch.long),
        positions=torch.arange(3),
        sources=None,
        segments=torch.tensor([[0, 3, 0, 0]]),
        silent_layer=silent_layer,
    )
    step = stack.begin(torch.ones(1, 3, sizes.hidden_size), placement, 0)
    step.advance(0, Stage.NEURONS)
    kv_cache.discard(0)
    return step.z.clone()


def test_weights_that_need_padded_inputs_are_not_stacked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PackedWeight, "takes_any_input", False)

    with running(build_family("llama", dtype=torch.bfloat16)) as engine:
        model = engine.engine._runner._fused
        assert model is not None
        assert model._stack is None
