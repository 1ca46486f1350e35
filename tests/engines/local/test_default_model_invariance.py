"""The real model answers 800 mixed requests the same alone and at once, in any order, with and without prefix cache."""

import random
from functools import cache

import pytest

from steering_profiles import find_profile
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.steering import UNSTEERED, Steering
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from tests.builders import steer
from tests.engines.local.running import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TEXT = (
    "#print the string 123\nprint(str(str(str(123 The capital of France is Paris, and that of Italy is Rome. "
    "def add(a, b):\n    return a + b\n\nOnce upon a time there was a cat who could not sleep. 12 + 30 = "
)


@cache
def arms() -> list[Steering]:

    parentheses, recall = (find_profile(name) for name in ("parentheses", "factual-recall"))
    return [
        UNSTEERED,
        steer(parentheses),
        steer(parentheses, strength=0.5),
        steer(parentheses, strength=-0.7),
        steer(recall),
        steer(parentheses, recall),
    ]


def mixed_requests(loaded: LoadedModel, *, greedy: bool) -> list[GenerationRequest]:
    draw = random.Random(int(greedy))
    tokens = loaded.tokenizer(TEXT * 3)["input_ids"]
    requests = []
    for seed in range(400):
        start, length = draw.randrange(60), draw.randint(1, 90)
        sampling = SamplingParams(
            max_tokens=draw.randint(2, 12),
            temperature=0.0 if greedy else draw.choice([0.3, 0.8, 1.0, 1.5]),
            top_p=draw.choice([1.0, 0.9]),
            top_k=draw.choice([None, 40]),
            seed=seed,
            logprobs=draw.choice([0, 3, 20]),
            ignore_eos=True,
        )
        requests.append(GenerationRequest(tuple(tokens[start : start + length]), sampling, draw.choice(arms())))
    return requests


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
def test_800_requests_are_answered_the_same_alone_and_at_once(dtype: str, greedy: bool):
    loaded = load_model(ModelSource(dtype=dtype))
    requests = mixed_requests(loaded, greedy=greedy)
    with running(loaded, prefix_cache=False) as engine:
        assert engine.engine.batch_invariance.holds, engine.engine.batch_invariance.reason
        alone = [engine.run(request)[0] for request in requests]
    assert len({answer.tokens for answer in alone}) > 200, "the requests hardly differ"
    for prefix_cache in (True, False):
        for order in range(3):
            shuffled = random.Random(order).sample(range(len(requests)), len(requests))
            with running(loaded, prefix_cache=prefix_cache, max_queue=len(requests)) as engine:
                answers = engine.run(*(requests[index] for index in shuffled), timeout=900)
            together: dict[int, Chunk] = dict(zip(shuffled, answers, strict=True))
            differing = [index for index, answer in enumerate(alone) if together[index] != answer]
            assert not differing, f"{len(differing)} of {len(requests)} differ"
