"""Throughput on a GPU: the engine with and without CUDA graphs, steered and unsteered, beside `generate()`.

Random weights are enough: the time does not depend on them. Contenders take turns, each on a copy of the model.

python -m benchmarks.gpu.throughput [--runs N] [--hidden-size 576] [--layers 30] [--out FILE.json]
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.contenders import Measure, engine_measure, generate, mixed_profiles
from benchmarks.machine import machine
from benchmarks.options import number_of_rounds
from benchmarks.prompts import NEW_TOKENS, PROMPT_TOKENS, random_prompts
from steering_profiles.models import LoadedModel, assemble
from steering_profiles.steering import UNSTEERED, Steering
from steering_server.engines.local.engine import Engine
from steering_server.limits import EngineLimits
from tests.builders import build_tokenizer

BATCHES = (1, 8, 32, 128)
REFERENCE = "engine"


def model(hidden_size: int, layers: int) -> LoadedModel:
    """Return a model of Llama's architecture with random weights, in bfloat16 on the GPU."""
    heads = max(1, hidden_size // 64)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 3 if heads % 3 == 0 else heads,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        made = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    return assemble("random", made, build_tokenizer())


def engine(loaded: LoadedModel, steerings: Sequence[Steering], *, cuda_graphs: bool) -> tuple[Measure, str | None]:
    """Return a measurement of the engine, and why it does not use CUDA graphs (None where it does)."""
    limits = EngineLimits(max_length=512, max_num_seqs=max(BATCHES), cuda_graphs=cuda_graphs)
    running = Engine(loaded, limits)
    running.start()
    return engine_measure(running, steerings), running.graphs_refused


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=number_of_rounds, default=3)
    parser.add_argument("--hidden-size", type=int, default=576)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    arguments = parser.parse_args()
    console = Console(stderr=True)
    if not torch.cuda.is_available():
        console.print("this benchmark needs a GPU, and PyTorch sees none")
        raise SystemExit(1)

    def made() -> LoadedModel:
        return model(arguments.hidden_size, arguments.layers)

    plain, mixed = made(), made()
    captured, refused = engine(mixed, [UNSTEERED], cuda_graphs=True)
    contenders: dict[str, Measure] = {
        "generate()": generate(plain),
        "engine, no graphs": engine(made(), [UNSTEERED], cuda_graphs=False)[0],
        REFERENCE: captured,
        "engine, 1 profile": engine(one := made(), mixed_profiles(one, 1), cuda_graphs=True)[0],
        "engine, 8 profiles": engine(eight := made(), mixed_profiles(eight, 8), cuda_graphs=True)[0],
    }
    if refused:
        console.print(f"without CUDA graphs: {refused}")
    seconds: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in contenders}
    seed = 0
    for batch in track(BATCHES, "measuring", console=console):
        for turn in range(arguments.runs + 1):
            for name, measure in contenders.items():
                seed += 1
                prompts = [[100 + token % 100 for token in each] for each in random_prompts(batch, PROMPT_TOKENS, seed)]
                taken = measure(prompts, NEW_TOKENS)
                if turn:  # the first is a warm-up: kernels are compiled, steps captured
                    seconds[name][batch].append(taken)
    Console().print(table(seconds))
    record = {"machine": machine() | {"gpu": torch.cuda.get_device_name()}, "graphs_refused": refused}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record | {"seconds": seconds}, indent=1) + "\n")


def table(seconds: dict[str, dict[int, list[float]]]) -> Table:
    """Return medians in tokens per second, and time as a multiple of the engine's."""
    shown = Table("", *(f"batch {batch}" for batch in BATCHES), title="tokens/s (time as a multiple of the engine's)")
    for name, by_batch in seconds.items():
        cells = []
        for batch in BATCHES:
            median, reference = statistics.median(by_batch[batch]), statistics.median(seconds[REFERENCE][batch])
            cells.append(f"{batch * NEW_TOKENS / median:.0f} ({median / reference:.2f})")
        shown.add_row(name, *cells)
    return shown


if __name__ == "__main__":
    main()
