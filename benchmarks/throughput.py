"""Throughput of the engine beside its peers: the same prompts and tokens for all, in turns, medians and ratios.

python -m benchmarks.throughput [--runs N] [--groups GROUP ...] [--batches N ...] [--out FILE.json]
"""

import argparse
import json
import random
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from benchmarks.lineup import BATCHES, GROUPS, LIMIT, REFERENCE, THREADS, Group, members
from benchmarks.machine import machine, model_folder
from benchmarks.options import number_of_rounds
from benchmarks.peers.environments import PeerUnavailable
from benchmarks.prompts import NEW_TOKENS, Prompts
from benchmarks.workers import ContenderFailed, Worker, worker

WARM_UP_TOKENS = 8


@dataclass
class Measured:
    """What a run of the benchmark found, by the names of the contenders."""

    batches: list[int]
    seconds: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """Seconds of each round at each batch size."""
    computed_in: dict[str, str] = field(default_factory=dict)
    """What each says of the types that it computes in."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Why a contender has no figures."""

    def tokens_per_second(self, name: str, batch: int) -> float:
        """Return the median."""
        rows = 2 * batch if name.endswith("pair") else batch
        return rows * NEW_TOKENS / statistics.median(self.seconds[name][batch])

    def over(self, slower: str, faster: str, batch: int) -> float:
        """Return the median, over rounds, of one contender's time as a multiple of another's in the same round."""
        pairs = zip(self.seconds[slower][batch], self.seconds[faster][batch], strict=True)
        return statistics.median(one / other for one, other in pairs)

    def share_of_limit(self, name: str, batch: int) -> float | None:
        """Return the share of the prepacked linear layers' speed; None if that was not measured."""
        if LIMIT not in self.seconds:
            return None
        return self.over(LIMIT, name, batch) * (2 if name.endswith("pair") else 1)


def measure_all(runs: int, groups: list[Group], batches: list[int], console: Console) -> Measured:
    """Measure the contenders in turn, ``runs`` times at every batch size."""
    prompts, measured = Prompts(model_folder()), Measured(batches)
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, command in track(members(groups).items(), "starting the contenders", console=console):
            try:
                found = stack.enter_context(worker(command(console), {"OMP_NUM_THREADS": str(THREADS)}))
                for batch in batches:
                    found.measure(prompts.take(batch), WARM_UP_TOKENS)
            except (PeerUnavailable, ContenderFailed) as exc:
                measured.unavailable[name] = str(exc)
                console.print(f"{name} is left out: {exc}", style="yellow", markup=False)
                continue
            workers[name] = found
            measured.computed_in[name] = found.described
            measured.seconds[name] = {batch: [] for batch in batches}
        order = random.Random(0)  # whoever comes first in every round would always follow the same one
        rounds = [
            (batch, name)
            for batch in batches
            for _ in range(runs)
            for name in order.sample(list(workers), len(workers))
        ]
        for batch, name in track(rounds, "measuring", console=console):
            if name in measured.unavailable:
                continue
            try:
                measured.seconds[name][batch].append(workers[name].measure(prompts.take(batch)))
            except ContenderFailed as exc:
                measured.unavailable[name] = str(exc)
                del measured.seconds[name]
    if REFERENCE in measured.unavailable:
        raise SystemExit(f"the engine failed: {measured.unavailable[REFERENCE]}")
    return measured


def show(measured: Measured) -> Table:
    """Return a table of all contenders; a contender without figures has the reason."""
    title = "tokens/s (share of the limit; the engine's speed over it)"
    table = Table("", *(f"batch {batch}" for batch in measured.batches), title=title)
    for name in measured.seconds:
        table.add_row(name, *(_cell(measured, name, batch) for batch in measured.batches))
    for name, reason in measured.unavailable.items():
        table.add_row(name, escape(reason))
    return table


def _cell(measured: Measured, name: str, batch: int) -> str:
    share, ratio = measured.share_of_limit(name, batch), measured.over(name, REFERENCE, batch)
    of_limit = "" if share is None else f"{share:.2f}; "
    return f"{measured.tokens_per_second(name, batch):.0f} ({of_limit}{ratio:.2f})"


def main() -> None:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=number_of_rounds, default=3)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--batches", nargs="+", type=int, choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.json"))
    arguments = parser.parse_args()
    measured = measure_all(arguments.runs, arguments.groups, arguments.batches, Console(stderr=True))
    shown = Console()
    shown.print(show(measured))
    for name, types in measured.computed_in.items():
        shown.print(f"{name} computes in {types}", markup=False)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record(measured), indent=1) + "\n")


def record(measured: Measured) -> dict[str, object]:
    """Return what is written to the JSON file."""
    return {
        "machine": machine(),
        "threads": THREADS,
        "new_tokens": NEW_TOKENS,
        "seconds": measured.seconds,
        "time_over_engine": {
            name: {batch: measured.over(name, REFERENCE, batch) for batch in measured.batches}
            for name in measured.seconds
        },
        "share_of_limit": {
            name: {batch: measured.share_of_limit(name, batch) for batch in measured.batches}
            for name in measured.seconds
        },
        "computed_in": measured.computed_in,
        "unavailable": measured.unavailable,
    }


if __name__ == "__main__":
    main()
