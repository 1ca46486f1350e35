"""Greedy choices in bfloat16, the engine's and transformers', compared with those of the engine in float32."""

import json
import queue
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from steering_profiles.evaluation.corpora import held_out_texts
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.steering import UNSTEERED
from steering_server.engines.local.engine import Engine
from steering_server.errors import EngineError
from steering_server.generation.requests import Chunk, GenerationRequest, SamplingParams
from steering_server.limits import EngineLimits

POSITIONS = 2000
WINDOW = 250
RESULTS = Path(__file__).parent / "results" / "agreement.json"


def windows(loaded: LoadedModel) -> list[tuple[int, ...]]:
    """Texts of ``WINDOW`` tokens, ``POSITIONS`` in all, equally many from each of the held-out corpora."""
    texts = [loaded.tokenizer(text)["input_ids"] for text in held_out_texts().values()]
    rounds = range(0, min(map(len, texts)) - WINDOW, WINDOW)
    return [tuple(tokens[start : start + WINDOW]) for start in rounds for tokens in texts][: POSITIONS // WINDOW]


def by_engine(loaded: LoadedModel) -> list[int]:
    """The likeliest next token at every position, by the engine."""
    engine = Engine(loaded, EngineLimits())
    engine.start()
    try:
        sampling = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs_from=0, prompt_alternatives=1)
        answers = answered(engine, [GenerationRequest(tokens, sampling, UNSTEERED) for tokens in windows(loaded)])
    finally:
        engine.close()
    choices = []
    for answer in answers:
        choices += [scored.top[0][0] for scored in answer.prompt_logprobs or () if scored is not None]
        choices += answer.tokens
    return choices


def answered(engine: Engine, requests: list[GenerationRequest]) -> list[Chunk]:
    """Run all requests at once and return the whole output of each."""
    reports: queue.SimpleQueue[tuple[int, Chunk | EngineError]] = queue.SimpleQueue()
    engine.submit(requests, lambda index, report: reports.put((index, report)))
    answers, unfinished = [Chunk() for _ in requests], len(requests)
    while unfinished:
        index, report = reports.get()
        if isinstance(report, EngineError):
            raise report
        answers[index] += report
        unfinished -= report.finish_reason is not None
    return answers


@torch.inference_mode()
def by_transformers(loaded: LoadedModel) -> list[int]:
    """The same by the model's own forward pass, as ``generate()`` makes it."""
    choices = []
    for tokens in windows(loaded):
        choices += loaded.model(torch.tensor([tokens]), use_cache=False).logits[0].argmax(dim=-1).tolist()
    return choices


def main() -> None:
    """Print the shares of equal choices and write them to ``results/agreement.json``."""
    exact = by_engine(load_model(ModelSource(dtype="float32")))
    loaded = load_model(ModelSource(dtype="bfloat16"))
    found = {"transformers, bfloat16": by_transformers(loaded), "engine, bfloat16": by_engine(loaded)}
    agreeing = {
        name: sum(one == other for one, other in zip(choices, exact, strict=True)) for name, choices in found.items()
    }
    table = Table("greedy choices", f"the float32 engine's, of {len(exact)}")
    for name, count in agreeing.items():
        table.add_row(name, str(count))
    Console().print(table)
    RESULTS.write_text(json.dumps({"positions": len(exact), "agreeing": agreeing}, indent=1) + "\n")


if __name__ == "__main__":
    main()
