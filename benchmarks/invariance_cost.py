"""The cost of batch invariance and of float32 logits: one engine, parts of it computed in other ways, in random order.

One engine serves every row, since the places of the weights in memory alone make two processes differ by several
percent. It is measured twice as it is: the ratio of the two is what chance does.

python -m benchmarks.invariance_cost [--rounds N] [--out FILE.json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import variants
from benchmarks.contenders import Measure, engine_measure
from benchmarks.lineup import BATCHES
from benchmarks.machine import machine
from benchmarks.one_engine import Seconds, seconds_in_turns
from benchmarks.options import number_of_rounds
from benchmarks.variants import Variant
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.steering import UNSTEERED
from steering_server.engines.local.engine import Engine
from steering_server.limits import EngineLimits

REFERENCE = "engine"
AGAIN = "engine, again"
BY_OPERATORS = "one call an operator"
UNEMBEDDING_FLOAT32 = "unembedding alone, float32"
UNEMBEDDING_BFLOAT16 = "unembedding alone, bfloat16"


def ways(loaded: LoadedModel, engine: Engine) -> dict[str, tuple[Variant, ...]]:
    """Return the variants that are in force together, by the name of the row."""
    by_operators = variants.one_call_an_operator(engine)
    onednn, attention = variants.onednn_products(engine), variants.pytorch_attention
    bfloat16 = variants.bfloat16_unembedding(engine, loaded)
    return {
        REFERENCE: (),
        AGAIN: (),
        "bfloat16 logits": (bfloat16,),
        BY_OPERATORS: (by_operators,),
        "PyTorch's attention": (by_operators, attention),
        "oneDNN's products": (by_operators, onednn),
        "oneDNN's products, bfloat16 logits": (by_operators, onednn, bfloat16),
        "all three": (by_operators, onednn, attention, bfloat16),
    }


def changed(measure: Measure, together: tuple[Variant, ...]) -> Measure:
    """Return a measurement of the engine with variants in force."""

    def measured(prompts: list[list[int]], new_tokens: int) -> float:
        with ExitStack() as stack:
            for variant in together:
                stack.enter_context(variant())
            return measure(prompts, new_tokens)

    return measured


def alone(loaded: LoadedModel, logits_of: Callable[[Tensor], Tensor]) -> Measure:
    """Return a measurement of the logits of the decoding steps only."""

    def measured(prompts: list[list[int]], new_tokens: int) -> float:
        hidden = torch.randn(len(prompts), loaded.anatomy.sizes.hidden_size, dtype=loaded.dtype)
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(new_tokens):
                logits_of(hidden)
        return time.perf_counter() - began

    return measured


def measure_all(rounds: int, console: Console) -> Seconds:
    """Return the seconds of each round of each row at each batch size.

    Raises:
        SystemExit: the engine is not batch invariant on this machine.
    """
    loaded = load_model(ModelSource())
    engine = Engine(loaded, EngineLimits(max_length=512))
    engine.start()
    try:
        if not engine.batch_invariance.holds:
            raise SystemExit(f"the engine is not batch invariant here: {engine.batch_invariance.reason}")
        plain = engine_measure(engine, [UNSTEERED])
        measures = {name: changed(plain, together) for name, together in ways(loaded, engine).items()}
        for name, in_float32 in ((UNEMBEDDING_FLOAT32, True), (UNEMBEDDING_BFLOAT16, False)):
            measures[name] = alone(loaded, variants.unembedding_alone(loaded, in_float32=in_float32))
        return seconds_in_turns(measures, rounds, console)
    finally:
        engine.close()


def ratio(seconds: Seconds, name: str, batch: int) -> float:
    """Return the median, over rounds, of a row's time as a multiple of the engine's in the same round."""
    pairs = zip(seconds[name][batch], seconds[REFERENCE][batch], strict=True)
    return statistics.median(one / engine for one, engine in pairs)


def fastest_other_way(seconds: Seconds, batch: int) -> tuple[str, float]:
    """Return the fastest row that computes otherwise, and the engine's speed as a share of its."""
    same = REFERENCE, AGAIN, BY_OPERATORS, UNEMBEDDING_FLOAT32, UNEMBEDDING_BFLOAT16
    rows = [name for name in seconds if name not in same]
    fastest = min(rows, key=lambda name: ratio(seconds, name, batch))
    return fastest, ratio(seconds, fastest, batch)


def cost_of_float32_logits(seconds: Seconds, batch: int) -> float:
    """Return what float32 logits take more than those of a bfloat16 linear layer, as a share of a step."""
    return ratio(seconds, UNEMBEDDING_FLOAT32, batch) - ratio(seconds, UNEMBEDDING_BFLOAT16, batch)


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=number_of_rounds, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/invariance_cost.json"))
    arguments = parser.parse_args()
    seconds = measure_all(arguments.rounds, Console(stderr=True))
    table = Table("", *(f"batch {batch}" for batch in BATCHES), title="time over that of the invariant engine")
    for name in seconds:
        table.add_row(name, *(f"{ratio(seconds, name, batch):.3f}" for batch in BATCHES))
    shown = Console()
    shown.print(table)
    for batch in BATCHES:
        way, share = fastest_other_way(seconds, batch)
        shown.print(f"batch {batch}: the invariant engine has {share:.3f} of the speed of: {way}", markup=False)
        cost = cost_of_float32_logits(seconds, batch)
        shown.print(f"batch {batch}: float32 logits take {cost:.1%} of a step more than bfloat16 ones")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
