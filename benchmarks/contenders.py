"""The contenders of the throughput benchmark. Each runs in its own process and makes one measurement per input line.

Two contenders in one process would share its thread pools and slow each other down.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal
from unittest.mock import patch

import torch

from steering_profiles.final_layer_fields import FinalLayer
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.schema import HeadScale, Profile
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.store import Catalogue
from steering_server.engines.local import kernels
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.prepacking import PrepackedLinears
from steering_server.errors import EngineError
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from steering_server.limits import EngineLimits, InvarianceMode

CONCURRENCIES = (1, 8, 32, 64)
"""Numbers of concurrent requests, for measurements in which a new request starts when one ends."""

Tokens = list[int]
Measure = Callable[[list[Tokens], int], float]
"""Generates that many tokens after each of a batch of prompts and returns the seconds that this took."""

NOT_INVARIANT = "engine, batch invariance off"
"""A contender whose answers depend on what runs beside them."""
NOT_COMPILED = "engine, no compiled kernels"
"""The engine as where the package was built without a C compiler: transformers' modules and PyTorch's kernels."""


def closed_loop(at_once: int) -> str:
    """Return the name of the contender that runs ``at_once`` concurrent requests."""
    return f"engine, {at_once} at once"


def linear_layers(loaded: LoadedModel, by: Literal["PyTorch", "oneDNN", "compiled kernels"]) -> Measure:
    """Only the matrix products of the decoding steps; but for PyTorch's, the weights are prepacked."""
    linears = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Linear)]
    if by == "oneDNN":
        patch.object(kernels, "can_multiply", lambda dtype: False).start()
    if by != "PyTorch":
        PrepackedLinears(loaded.model)

    def measure(prompts: list[Tokens], new_tokens: int) -> float:
        widths = {module.in_features for module in linears}
        inputs = {width: torch.randn(1, len(prompts), width, dtype=loaded.dtype) for width in widths}
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(new_tokens):
                for module in linears:
                    module(inputs[module.in_features])
        return time.perf_counter() - began

    return measure


def generate(loaded: LoadedModel) -> Measure:
    """transformers ``generate()``, one static batch."""

    def measure(prompts: list[Tokens], new_tokens: int) -> float:
        ids = torch.tensor(prompts)
        began = time.perf_counter()
        loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
        )
        return time.perf_counter() - began

    return measure


def engine(
    loaded: LoadedModel,
    steerings: Sequence[Steering],
    *,
    arms: int = 1,
    at_once: int | None = None,
    batch_invariant: InvarianceMode = "auto",
) -> Measure:
    """Our engine, started for this, see :func:`engine_measure`."""
    running = Engine(loaded, EngineLimits(max_length=512, batch_invariant=batch_invariant))
    running.start()
    return engine_measure(running, steerings, arms=arms, at_once=at_once)


def engine_measure(
    running: Engine, steerings: Sequence[Steering], *, arms: int = 1, at_once: int | None = None
) -> Measure:
    """Our engine. Each prompt is one request of ``arms`` sequences, which take the ``steerings`` in turn.

    No more than ``at_once`` requests run at the same time: the next one comes when one has ended.
    """

    async def answer(index: int, prompt: Tokens, sampling: SamplingParams, room: asyncio.Semaphore) -> None:
        loop, finished = asyncio.get_running_loop(), asyncio.Queue[None]()

        def emit(index: int, report: Chunk | EngineError) -> None:
            if isinstance(report, EngineError):
                raise report
            if report.finish_reason:
                loop.call_soon_threadsafe(finished.put_nowait, None)

        of_arms = [steerings[(index * arms + arm) % len(steerings)] for arm in range(arms)]
        async with room:
            running.submit([GenerationRequest(tuple(prompt), sampling, steering) for steering in of_arms], emit)
            for _ in of_arms:
                await finished.get()

    async def run(prompts: list[Tokens], new_tokens: int) -> None:
        sampling = SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True)
        room = asyncio.Semaphore(at_once or len(prompts))
        await asyncio.gather(*(answer(index, prompt, sampling, room) for index, prompt in enumerate(prompts)))

    def measure(prompts: list[Tokens], new_tokens: int) -> float:
        began = time.perf_counter()
        asyncio.run(run(prompts, new_tokens))
        return time.perf_counter() - began

    return measure


def mixed_profiles(loaded: LoadedModel, count: int) -> list[Steering]:
    """Return ``count`` different profiles of 20 heads each, spread over the layers."""
    sizes = loaded.anatomy.sizes
    places = [(layer, head) for head in range(sizes.heads) for layer in range(sizes.layers)]
    steerings: list[Steering] = []
    for index in range(count):
        heads = [HeadScale(layer=layer, head=head, scale=1.1) for layer, head in sorted(places[index * 20 :][:20])]
        profile = Profile(
            name=f"mixed-{index}", description="", method="manual", model=loaded.identity, heads=tuple(heads)
        )
        steerings.append(Steering((ProfileAtStrength(profile),)))
    return steerings


def shipped() -> Steering:
    """Return the shipped profile ``parentheses``, at every position."""
    return Steering((ProfileAtStrength(Catalogue.open()["parentheses"].profile.everywhere()),))


def final_layer(loaded: LoadedModel) -> Steering:
    """Return a profile that has the self-only attention mask only."""
    settings = FinalLayer(self_only_attention=1.0)
    profile = Profile(name="final", description="", method="manual", model=loaded.identity, final_layer=settings)
    return Steering((ProfileAtStrength(profile),))


def uncompiled_engine(loaded: LoadedModel) -> Measure:
    """Our engine without the compiled kernels, from now on in this process."""
    patch.object(kernels, "UNAVAILABLE", "they are left out to be compared").start()
    return engine(loaded, [UNSTEERED])


def contender(name: str, loaded: LoadedModel) -> Measure:
    """Return the contender of that name."""
    makers: dict[str, Callable[[], Measure]] = {
        "linear layers": lambda: linear_layers(loaded, "PyTorch"),
        "linear layers, prepacked": lambda: linear_layers(loaded, "oneDNN"),
        "linear layers, our kernels": lambda: linear_layers(loaded, "compiled kernels"),
        "generate()": lambda: generate(loaded),
        "engine": lambda: engine(loaded, [UNSTEERED]),
        "engine, 1 profile": lambda: engine(loaded, [shipped()]),
        "engine, 8 profiles": lambda: engine(loaded, mixed_profiles(loaded, 8)),
        "engine, pair": lambda: engine(loaded, [UNSTEERED, shipped()], arms=2),
        "engine, final-layer pair": lambda: engine(loaded, [UNSTEERED, final_layer(loaded)], arms=2),
        NOT_INVARIANT: lambda: engine(loaded, [UNSTEERED], batch_invariant="off"),
        NOT_COMPILED: lambda: uncompiled_engine(loaded),
    }
    for at_once in CONCURRENCIES:
        makers[closed_loop(at_once)] = partial(engine, loaded, [UNSTEERED], at_once=at_once)
    return makers[name]()


def main() -> None:
    """Read batches of prompts from standard input and write the seconds that each takes to standard output."""
    loaded = load_model(ModelSource())
    measure = contender(sys.argv[1], loaded)
    print(json.dumps(str(loaded.dtype).removeprefix("torch.")), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(measure(task["prompts"], task["new_tokens"])), flush=True)


if __name__ == "__main__":
    main()
