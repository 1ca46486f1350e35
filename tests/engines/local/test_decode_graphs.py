"""Captured decoding steps compute what the others do, for every family and mixture of steerings.

CUDA graphs need a GPU. Here steps are captured by tracing them to a graph of operators, which is then run instead: it
too has no Python of the model, and repeats on the same addresses whatever was not read from a buffer.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_server.engines.local import decode_graphs, kernels
from steering_server.engines.local.decode_graphs import DecodeGraphs, Step
from steering_server.engines.local.slotted_attention import block_mask
from steering_server.generation.requests import GenerationRequest
from tests.builders import build_profile, steer
from tests.engines.local.running import GREEDY, PROMPTS, running
from tests.families import CASES, build_family

QUICK = ("llama", "gemma2")
SERVED = [
    case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != "falcon-rw"
]
"""Tracing takes seconds; the quick ones have all that steps consist of: Gemma 2 has softcaps and sliding windows."""

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

SHORT = replace(GREEDY, max_tokens=5)
AT_START = 3
"""Steps that the check at start captures: one sequence unsteered, one steered, and two."""

captured: list[str] = []
"""One entry for each step that was captured."""


def traced(step: Step) -> Step:
    """Capture a step as a graph of operators."""
    graph = make_fx(step)()
    captured.append("step")
    return graph


@pytest.fixture(autouse=True)
def capturing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "UNAVAILABLE", "they are for CPUs; this test is of what runs on GPUs")
    monkeypatch.setattr(decode_graphs, "refusal", lambda loaded: None)
    monkeypatch.setattr(decode_graphs, "cuda_graph", traced)
    captured.clear()


def arms_of(loaded: LoadedModel) -> list[Steering]:
    last = loaded.anatomy.sizes.layers - 1
    neurons = [(0, 2, 4.0), (last, 11, 6.0)] if loaded.anatomy.neurons_refused is None else []
    heads = build_profile(loaded, "heads", heads=[(0, 1, 3.0), (1, 0, -1.0), (last, 3, 2.5)], neurons=neurons)
    final = build_profile(loaded, "final", self_only_attention=1.0, intercept_scale=0.7)
    return [UNSTEERED, steer(heads), steer(final)]


def generated(loaded: LoadedModel, requests: Sequence[GenerationRequest], *, graphs: bool) -> list[tuple[int, ...]]:
    with running(loaded, cuda_graphs=graphs) as engine:
        assert engine.engine.graphs_refused is None or not graphs, engine.engine.graphs_refused
        return [chunk.tokens for chunk in engine.run(*requests)]


@pytest.mark.parametrize("case", SERVED)
def test_a_mixed_batch_generates_the_same_tokens_by_captured_steps(case: str):
    loaded = build_family(case)
    requests = [GenerationRequest(prompt, SHORT, arm) for arm in arms_of(loaded) for prompt in PROMPTS[:2]]
    expected = generated(loaded, requests, graphs=False)
    assert len(set(expected)) > 3, "the prompts and arms hardly differ"
    assert not captured
    assert generated(loaded, requests, graphs=True) == expected
    assert AT_START < len(captured) <= AT_START + 3, "a few for all steps of decoding"


def test_gated_sequences_are_computed_by_other_steps():
    loaded = build_family("llama")
    gated = steer(build_profile(loaded, "gated", self_only_attention=1.0, intercept_scale=0.7, gate=(0.0, 0.5)))
    requests = [GenerationRequest(PROMPTS[1], GREEDY, arm) for arm in (gated, UNSTEERED)]
    expected = generated(loaded, requests, graphs=False)
    assert generated(loaded, requests, graphs=True) == expected
    assert len(captured) == AT_START


def test_profiles_that_come_later_are_read_by_steps_that_were_captured_before():
    loaded = build_family("llama")
    first = steer(build_profile(loaded, "first", heads=[(0, 1, 3.0)]))
    later = steer(build_profile(loaded, "later", heads=[(0, 1, -2.0), (0, 2, 4.0)]))
    elsewhere = steer(build_profile(loaded, "elsewhere", heads=[(1, 2, 4.0)], neurons=[(2, 3, 8.0)]))
    requests = [GenerationRequest(PROMPTS[1], GREEDY, arm) for arm in (first, later, elsewhere, UNSTEERED)]
    expected = [generated(loaded, [request], graphs=False)[0] for request in requests]
    assert len(set(expected)) == len(expected)
    with running(loaded) as engine:
        steps = []
        for request, tokens in zip(requests, expected, strict=True):
            assert engine.run(request)[0].tokens == tokens
            steps.append(len(captured))
    new = [after - before for before, after in pairwise(steps)]
    assert new[0] == 0, "a profile of the same layers needs no new capture"
    assert new[1] == 1, "other layers do"


def test_more_profiles_than_the_table_had_room_for_are_steered():
    loaded = build_family("llama")
    arms = [steer(build_profile(loaded, f"p{n}", heads=[(n % 3, n % 4, 2.0 + n)])) for n in range(9)]
    requests = [GenerationRequest(PROMPTS[0], SHORT, arm) for arm in arms]
    assert generated(loaded, requests, graphs=True) == generated(loaded, requests, graphs=False)


def test_a_capture_that_fails_leaves_the_engine_without_and_says_why(monkeypatch: pytest.MonkeyPatch):
    def failing(step: Step) -> Step:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    loaded = build_family("llama")
    request = GenerationRequest(PROMPTS[1], GREEDY, arms_of(loaded)[1])
    expected = generated(loaded, [request], graphs=False)
    monkeypatch.setattr(decode_graphs, "cuda_graph", failing)
    with running(loaded) as engine:
        assert engine.engine.graphs_refused == (
            "a decoding step could not be captured: RuntimeError: operation not permitted when stream is capturing"
        )
        assert [chunk.tokens for chunk in engine.run(request)] == expected


def test_a_captured_step_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch):
    def stale(step: Step) -> Step:
        logits = step().clone()
        return lambda: logits

    monkeypatch.setattr(decode_graphs, "cuda_graph", stale)
    loaded = build_family("llama")
    with running(loaded) as engine:
        assert "gave other logits" in str(engine.engine.graphs_refused)
        assert engine.engine._runner._graphs is None


def test_a_model_that_is_not_on_a_gpu_is_not_captured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    with running(build_family("llama")) as engine:
        assert engine.engine.graphs_refused == "it is not on a GPU as a whole"


def test_graphs_cover_steps_of_decoding_alone():
    loaded = build_family("llama")
    seen = []
    run = DecodeGraphs.run
    with pytest.MonkeyPatch.context() as patch, running(loaded) as engine:
        patch.setattr(DecodeGraphs, "run", lambda self, inputs: seen.append(len(inputs)) or run(self, inputs))
        engine.run(GenerationRequest(PROMPTS[0], GREEDY, UNSTEERED), GenerationRequest(PROMPTS[1], GREEDY, UNSTEERED))
    assert seen == [2] * (GREEDY.max_tokens - 1)


@pytest.mark.parametrize("window", [None, 1, 100, 128, 200])
def test_the_blocks_of_a_sequence_hold_all_that_it_sees_and_nothing_of_others(window: int | None):
    length, slots = 512, 5
    generator = torch.Generator().manual_seed(0)
    positions = torch.cat([torch.randint(length, (40,), generator=generator), torch.tensor([0, 127, 128, 511])])
    slots_of = torch.randint(slots, positions.shape, generator=generator)
    mask = block_mask(slots_of, positions, slots=slots, length=length, window=window)
    for sequence, (slot, position) in enumerate(zip(slots_of.tolist(), positions.tolist(), strict=True)):
        first = 0 if window is None else max(0, position - window + 1)
        expected = set(range(slot * length + first, slot * length + position + 1))
        count = int(mask.kv_num_blocks[sequence, 0, 0])
        blocks = mask.kv_indices[sequence, 0, 0, :count].tolist()
        candidates = torch.tensor([block * 128 + offset for block in blocks for offset in range(128)])
        batch = torch.full_like(candidates, sequence)
        visible = mask.mask_mod(batch, batch, torch.zeros_like(candidates), candidates)
        assert set(candidates[visible].tolist()) == expected
