"""The cost of steering: one engine, the same prompts' lengths, steered and unsteered batches in random order.

Requests choose their steering, so one engine serves every row, and nothing but the steering differs. The unsteered
batch is measured twice: the ratio of the two is what chance does.

python -m benchmarks.steering_cost [--rounds N] [--out FILE.json]
"""

import argparse
import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import Measure, engine_measure, final_layer, mixed_profiles, shipped
from benchmarks.lineup import BATCHES
from benchmarks.machine import machine
from benchmarks.one_engine import Seconds, seconds_in_turns
from benchmarks.options import number_of_rounds
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.steering import UNSTEERED
from steering_server.engines.local.engine import Engine
from steering_server.limits import EngineLimits

REFERENCE = "unsteered"


def contenders(loaded: LoadedModel, engine: Engine) -> dict[str, Measure]:
    """Return what is measured, by name."""
    return {
        REFERENCE: engine_measure(engine, [UNSTEERED]),
        "unsteered, again": engine_measure(engine, [UNSTEERED]),
        "1 profile": engine_measure(engine, [shipped()]),
        "8 profiles": engine_measure(engine, mixed_profiles(loaded, 8)),
        "pair of arms": engine_measure(engine, [UNSTEERED, shipped()], arms=2),
        "final-layer pair": engine_measure(engine, [UNSTEERED, final_layer(loaded)], arms=2),
    }


def measure_all(rounds: int, console: Console) -> Seconds:
    """Return the seconds of each round of each contender at each batch size."""
    loaded = load_model(ModelSource())
    engine = Engine(loaded, EngineLimits(max_length=512))
    engine.start()
    try:
        return seconds_in_turns(contenders(loaded, engine), rounds, console)
    finally:
        engine.close()


def ratio(seconds: Seconds, name: str, batch: int) -> float:
    """Return the median of a contender's time over that of the unsteered batch."""
    return statistics.median(seconds[name][batch]) / statistics.median(seconds[REFERENCE][batch])


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=number_of_rounds, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/steering_cost.json"))
    arguments = parser.parse_args()
    seconds = measure_all(arguments.rounds, Console(stderr=True))
    table = Table("", *(f"batch {batch}" for batch in BATCHES), title="time over that of an unsteered batch")
    for name in seconds:
        table.add_row(name, *(f"{ratio(seconds, name, batch):.3f}" for batch in BATCHES))
    Console().print(table)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
