"""Throughput of the engine beside its peers: the same prompt and tokens for all, alternating runs, medians and ratios.

python benchmarks/throughput.py [--runs N] [--out FILE.json]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.contenders import NEW_TOKENS

BATCHES = (1, 8, 32)
CONTENDERS = ("linear layers", "generate()", "engine", "engine, 1 profile", "engine, 8 profiles", "engine, pair")
REFERENCE = "engine"


class Worker:
    """A contender in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> float:
        """Wait for the next answer."""
        if self._process.stdout is None:
            raise RuntimeError("the contender has no output")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended: {self._process.args!r}")
        answer: float = json.loads(line)
        return answer

    def measure(self, batch: int) -> float:
        """Return the seconds that a batch of that size takes."""
        if self._process.stdin is None:
            raise RuntimeError("the contender has no input")
        print(batch, file=self._process.stdin, flush=True)
        return self.read()


@contextmanager
def worker(name: str) -> Iterator[Worker]:
    """Start the contender of that name and wait until it has warmed up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.contenders", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        started = Worker(process)
        started.read()
        yield started
    finally:
        process.kill()
        process.wait()


def measure_all(runs: int) -> dict[str, dict[int, list[float]]]:
    """Return the seconds of every run: all contenders in turn, ``runs`` times, at every batch size."""
    seconds: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in CONTENDERS}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker(name)) for name in CONTENDERS}
        rounds = [(batch, name) for batch in BATCHES for _ in range(runs) for name in CONTENDERS]
        for batch, name in track(rounds, "measuring", console=Console(stderr=True)):
            # The pair is of arms of one request: twice as many rows as there are requests.
            rows = 2 * batch if name == "engine, pair" else batch
            seconds[name][batch].append(workers[name].measure(rows))
    return seconds


def show(seconds: dict[str, dict[int, list[float]]]) -> Table:
    """Lay out medians: tokens per second, and the ratio of times to the engine's in the same round."""
    table = Table("", *(f"batch {batch}" for batch in BATCHES), title="tokens/s (time as a multiple of the engine's)")
    for name in CONTENDERS:
        cells = []
        for batch in BATCHES:
            rows = 2 * batch if name == "engine, pair" else batch
            speed = rows * NEW_TOKENS / statistics.median(seconds[name][batch])
            pairs = zip(seconds[name][batch], seconds[REFERENCE][batch], strict=True)
            cells.append(f"{speed:.0f} ({statistics.median(one / other for one, other in pairs):.2f})")
        table.add_row(name, *cells)
    return table


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.json"))
    arguments = parser.parse_args()
    seconds = measure_all(arguments.runs)
    Console().print(show(seconds))
    record = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "torch": torch.__version__,
        "new_tokens": NEW_TOKENS,
        "seconds": seconds,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
