"""The cost of steering in vLLM: two engines with the same settings, one with the plugin and one without, in turns.

The one that is not measured is stopped. Measured are the clock and the computing time of vLLM's worker, which says more
on a machine that others use too. Runs in the environment of the tests with vLLM, after `make test-vllm`:

.venv-vllm/bin/python -m benchmarks.vllm_steering [--rounds N] [--new-tokens N] [--dtype DTYPE] [--out FILE.json]
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import machine, model_folder
from benchmarks.prompts import NEW_TOKENS, Prompts

BATCHES = (1, 8, 32)
STOCK = "stock vLLM"
CONTENDERS: dict[str, list[str] | None] = {
    STOCK: None,
    "stock vLLM, again": None,
    "plugin, unsteered": None,
    "plugin, 1 profile": ["parentheses"],
    "plugin, 8 profiles": [f"parentheses+factual-recall@{strength / 8}" for strength in range(1, 9)],
}
"""Labels that the requests of a batch have in turn, by contender."""

Seconds = dict[str, dict[int, list[float]]]
"""Of each round, by contender and batch size."""


class Engine:
    """A process of vLLM that runs only while it is measured."""

    def __init__(self, dtype: str, plugins: str) -> None:
        """Start it with the plugins of these names."""
        script = Path(__file__).parent / "peers" / "vllm_engine.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script), model_folder(), dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "VLLM_PLUGINS": plugins},
            start_new_session=True,
        )
        self._read()
        processes = psutil.Process(self._process.pid).children(recursive=True)
        (self._worker,) = [one for one in processes if "VLLM::Worker" in " ".join(one.cmdline())]
        self._signal(signal.SIGSTOP)

    def measure(self, prompts: Sequence[list[int]], new_tokens: int, steering: list[str] | None) -> tuple[float, float]:
        """Return the seconds that a batch takes, and those that vLLM's worker computes."""
        began = self._computed()
        asked = {"prompts": prompts, "new_tokens": new_tokens, "steering": steering}
        self._signal(signal.SIGCONT)
        print(json.dumps(asked), file=_open(self._process.stdin), flush=True)
        seconds = float(self._read())
        computed = self._computed() - began
        self._signal(signal.SIGSTOP)
        return seconds, computed

    def _computed(self) -> float:
        times = self._worker.cpu_times()
        return float(times.user + times.system)

    def end(self) -> None:
        """End the process and its workers."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _read(self) -> str:
        line = _open(self._process.stdout).readline()
        if not line:
            raise SystemExit("vLLM ended; run benchmarks/peers/vllm_engine.py to see why")
        answer: str | float = json.loads(line)
        return str(answer)

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def engines(dtype: str) -> Iterator[tuple[Engine, Engine]]:
    """Yield an engine without the plugin and one with it."""
    stock = Engine(dtype, "")
    try:
        steered = Engine(dtype, "steering")
        try:
            yield stock, steered
        finally:
            steered.end()
    finally:
        stock.end()


def measure_all(dtype: str, rounds: int, new_tokens: int, console: Console) -> tuple[Seconds, Seconds]:
    """Return the seconds of each round of each contender at each batch size, by the clock and of computing."""
    prompts, order = Prompts(model_folder()), random.Random(0)
    clock: Seconds = {name: {batch: [] for batch in BATCHES} for name in CONTENDERS}
    computing: Seconds = {name: {batch: [] for batch in BATCHES} for name in CONTENDERS}
    console.print("starting vLLM twice")
    with engines(dtype) as (stock, steered):
        by_name = {name: stock if name.startswith(STOCK) else steered for name in CONTENDERS}
        for batch in BATCHES:
            for name, labels in CONTENDERS.items():
                by_name[name].measure(prompts.take(batch), 4, labels)  # warm up
            for _ in track(range(rounds), f"batch {batch}", console=console):
                for name in order.sample(list(CONTENDERS), len(CONTENDERS)):
                    took, computed = by_name[name].measure(prompts.take(batch), new_tokens, CONTENDERS[name])
                    clock[name][batch].append(took)
                    computing[name][batch].append(computed)
    return clock, computing


def ratio(seconds: Seconds, name: str, batch: int) -> float:
    """Return a contender's throughput over that of stock vLLM, by the median of the rounds' ratios."""
    rounds = zip(seconds[STOCK][batch], seconds[name][batch], strict=True)
    return statistics.median(stock / own for stock, own in rounds)


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vllm_steering.json"))
    arguments = parser.parse_args()
    clock, computing = measure_all(arguments.dtype, arguments.rounds, arguments.new_tokens, Console(stderr=True))
    for measured, seconds in (("the clock", clock), ("computing time", computing)):
        title = f"throughput over stock vLLM by {measured}, {arguments.dtype}"
        table = Table("", *(f"batch {batch}" for batch in BATCHES), title=title)
        for name in CONTENDERS:
            table.add_row(name, *(f"{ratio(seconds, name, batch):.3f}" for batch in BATCHES))
        Console().print(table)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine(),
        "dtype": arguments.dtype,
        "new_tokens": arguments.new_tokens,
        "seconds": clock,
        "computing_seconds": computing,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
