"""Throughput of the engine beside its peers: the same prompts and tokens for all, alternating runs, medians and ratios.

python -m benchmarks.throughput [--runs N] [--out FILE.json]
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import machine, model_folder
from benchmarks.peers import environments, vllm_engine
from benchmarks.prompts import NEW_TOKENS, Prompts

BATCHES = (1, 8, 32)
OURS = (
    "linear layers",
    "linear layers, prepacked",
    "generate()",
    "engine",
    "engine, 1 profile",
    "engine, 8 profiles",
    "engine, pair",
    "engine, final-layer pair",
)
VLLM = "vLLM"
REFERENCE = "engine"

Seconds = dict[str, dict[int, list[float]]]


class Worker:
    """A contender in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> float:
        """Wait for the next result of the contender."""
        if self._process.stdout is None:
            raise RuntimeError("the contender has no output")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended before it gave a result: {self._process.args!r}")
        answer: float = json.loads(line)
        return answer

    def measure(self, prompts: list[list[int]]) -> float:
        """Return the seconds that the contender takes for a batch of ``prompts``."""
        if self._process.stdin is None:
            raise RuntimeError("the contender has no input")
        print(json.dumps(prompts), file=self._process.stdin, flush=True)
        return self.read()


@contextmanager
def worker(command: Sequence[str]) -> Iterator[Worker]:
    """Start a contender and wait until it has warmed up."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        started = Worker(process)
        started.read()
        yield started
    finally:
        process.terminate()  # vLLM has processes of its own to end
        process.wait()


def commands(console: Console) -> dict[str, list[str]]:
    """Return the command of each contender that is available."""
    found = {name: [sys.executable, "-m", "benchmarks.contenders", name] for name in OURS}
    peer = environments.vllm(console)
    if peer is not None:
        found[VLLM] = [str(peer.python), str(vllm_engine.__file__), model_folder(), str(NEW_TOKENS)]
    return found


def measure_all(runs: int, console: Console) -> Seconds:
    """Measure all contenders in turn, ``runs`` times at every batch size; return the seconds of each run."""
    prompts = Prompts(model_folder())
    with ExitStack() as stack:
        with console.status("starting the contenders"):
            workers = {name: stack.enter_context(worker(command)) for name, command in commands(console).items()}
        seconds: Seconds = {name: {batch: [] for batch in BATCHES} for name in workers}
        rounds = [(batch, name) for batch in BATCHES for _ in range(runs) for name in workers]
        for batch, name in track(rounds, "measuring", console=console):
            seconds[name][batch].append(workers[name].measure(prompts.take(batch)))
    return seconds


def show(seconds: Seconds) -> Table:
    """Return a table of medians: tokens per second, and time as a multiple of the engine's in the same round."""
    table = Table("", *(f"batch {batch}" for batch in BATCHES), title="tokens/s (time as a multiple of the engine's)")
    for name, by_batch in seconds.items():
        cells = []
        for batch in BATCHES:
            rows = 2 * batch if name.endswith("pair") else batch
            speed = rows * NEW_TOKENS / statistics.median(by_batch[batch])
            cells.append(f"{speed:.0f} ({ratio(seconds, name, batch):.2f})")
        table.add_row(name, *cells)
    return table


def ratio(seconds: Seconds, name: str, batch: int) -> float:
    """Return the median, over rounds, of a contender's time as a multiple of the engine's."""
    pairs = zip(seconds[name][batch], seconds[REFERENCE][batch], strict=True)
    return statistics.median(one / other for one, other in pairs)


def main() -> None:
    """Measure, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.json"))
    arguments = parser.parse_args()
    seconds = measure_all(arguments.runs, Console(stderr=True))
    Console().print(show(seconds))
    ratios = {name: {batch: ratio(seconds, name, batch) for batch in BATCHES} for name in seconds}
    record = {"machine": machine(), "new_tokens": NEW_TOKENS, "seconds": seconds, "time_over_engine": ratios}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
