"""What is measured: each contender runs in a process of its own and answers one measurement per line of its input.

Two of them in one process would share its thread pools and slow each other down.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence

import torch

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.schema import HeadScale, Profile
from steering_profiles.steering import UNSTEERED, AppliedProfile, Steering
from steering_profiles.store import Catalogue
from steering_server.engine.engine import Engine, EngineLimits
from steering_server.engine.requests import Chunk, SamplingParams, SequenceRequest
from steering_server.errors import EngineError

PROMPT = "Once upon a time there was a small dog who lived in a large house near the sea, and every morning"
NEW_TOKENS = 64

Measure = Callable[[int], float]
"""Runs a batch of the given size to the end and returns the seconds that took."""


def linear_layers(loaded: LoadedModel) -> Measure:
    """Only the matrix products of the decoding steps: what no engine on this model can beat."""
    linears = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Linear)]

    def measure(batch: int) -> float:
        inputs = {width: torch.randn(batch, width, dtype=loaded.dtype) for width in {m.in_features for m in linears}}
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(NEW_TOKENS):
                for module in linears:
                    module(inputs[module.in_features])
        return time.perf_counter() - began

    return measure


def generate(loaded: LoadedModel) -> Measure:
    """transformers ``generate()``, one static batch."""
    prompt = loaded.tokenizer(PROMPT, return_tensors="pt")["input_ids"]

    def measure(batch: int) -> float:
        ids = prompt.expand(batch, -1)
        began = time.perf_counter()
        loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        return time.perf_counter() - began

    return measure


def engine(loaded: LoadedModel, steerings: Sequence[Steering]) -> Measure:
    """Our engine; row i of the batch is steered by ``steerings[i % len(steerings)]``."""
    prompt = tuple(loaded.tokenizer.encode(PROMPT))
    running = Engine(loaded, EngineLimits(max_length=512))
    running.start()
    sampling = SamplingParams(max_tokens=NEW_TOKENS, temperature=0, ignore_eos=True)

    async def run(batch: int) -> None:
        loop, finished = asyncio.get_running_loop(), asyncio.Queue[None]()

        def emit(index: int, report: Chunk | EngineError) -> None:
            if isinstance(report, EngineError):
                raise report
            if report.finish_reason:
                loop.call_soon_threadsafe(finished.put_nowait, None)

        requests = [SequenceRequest(prompt, sampling, steerings[row % len(steerings)]) for row in range(batch)]
        running.submit(requests, emit)
        for _ in requests:
            await finished.get()

    def measure(batch: int) -> float:
        began = time.perf_counter()
        asyncio.run(run(batch))
        return time.perf_counter() - began

    return measure


def mixed_profiles(loaded: LoadedModel, count: int) -> list[Steering]:
    """``count`` different profiles of 20 heads each, spread over the layers."""
    sizes = loaded.anatomy.sizes
    places = [(layer, head) for head in range(sizes.heads) for layer in range(sizes.layers)]
    steerings: list[Steering] = []
    for index in range(count):
        heads = [HeadScale(layer=layer, head=head, scale=1.1) for layer, head in sorted(places[index * 20 :][:20])]
        profile = Profile(
            name=f"mixed-{index}", description="", method="manual", model=loaded.identity, heads=tuple(heads)
        )
        steerings.append((AppliedProfile(profile),))
    return steerings


def contender(name: str, loaded: LoadedModel) -> Measure:
    """Return the contender of that name."""
    shipped = (AppliedProfile(Catalogue.open()["parentheses"].profile),)
    makers: dict[str, Callable[[], Measure]] = {
        "linear layers": lambda: linear_layers(loaded),
        "generate()": lambda: generate(loaded),
        "engine": lambda: engine(loaded, [UNSTEERED]),
        "engine, 1 profile": lambda: engine(loaded, [shipped]),
        "engine, 8 profiles": lambda: engine(loaded, mixed_profiles(loaded, 8)),
        "engine, pair": lambda: engine(loaded, [UNSTEERED, shipped]),
    }
    return makers[name]()


def main() -> None:
    """Answer batch sizes on standard input with seconds on standard output."""
    measure = contender(sys.argv[1], load_model(ModelSource()))
    measure(1)  # warm up
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
