"""A running engine for tests."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from steering_profiles.models import LoadedModel
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.grammars.compiling import GrammarCompiler
from steering_server.engines.local.ragged import SequenceInput
from steering_server.engines.local.runner import SequenceOutput
from steering_server.errors import EngineError
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from steering_server.limits import EngineLimits

GREEDY = SamplingParams(max_tokens=12, temperature=0)
PROMPTS = [(72, 69, 76), (40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), (9,), (65,) * 30]


class Running:
    """A running engine and the output of its sequences."""

    def __init__(self, engine: Engine, grammars: GrammarCompiler) -> None:
        self.engine = engine
        self.grammars = grammars

    def run(self, *requests: GenerationRequest, timeout: float = 60) -> list[Chunk]:
        """Run ``requests`` as one group and return the whole output of each."""
        results = [Chunk() for _ in requests]
        finished = threading.Semaphore(0)
        errors: list[EngineError] = []

        def emit(index: int, report: Chunk | EngineError) -> None:
            if isinstance(report, EngineError):
                errors.append(report)
                finished.release(len(requests))
            else:
                results[index] += report
                if report.finish_reason:
                    finished.release()

        matchers = asyncio.run(self.grammars.matchers([request.sampling for request in requests]))
        self.engine.submit(requests, emit, matchers=matchers)
        for _ in requests:
            assert finished.acquire(timeout=timeout), "the engine never answered"
        if errors:
            raise errors[0]
        return results

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> list[SequenceInput]:
        """Return a list to which every input that is computed from now on is added."""
        computed: list[SequenceInput] = []
        compute = self.engine._runner.run

        def run(inputs: Sequence[SequenceInput]) -> list[SequenceOutput]:
            computed.extend(inputs)
            return compute(inputs)

        monkeypatch.setattr(self.engine._runner, "run", run)
        return computed


@contextmanager
def running(loaded: LoadedModel, *, ends: bool = False, **limits: Any) -> Iterator[Running]:
    """Run an engine on ``loaded``. Without ``ends`` no token ends a text; random weights generate them at random."""
    engine = Engine(loaded, EngineLimits(**limits))
    if not ends:
        engine.end_tokens = frozenset()
    grammars = GrammarCompiler(engine.vocabulary, loaded.identity.vocab_size, engine.end_tokens)
    engine.start()
    try:
        yield Running(engine, grammars)
    finally:
        grammars.close()
        engine.close()
