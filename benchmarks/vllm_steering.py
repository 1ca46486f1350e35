"""The cost of steering in vLLM: engines with the same settings, with the plugin and without, in turns.

An engine that serves a profile with a condition schedules synchronously, so that one without is measured as well. Those
that are not measured are stopped. Measured are the clock and the computing time of vLLM's worker, which says more
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
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import machine, model_folder
from benchmarks.options import number_of_rounds
from benchmarks.prompts import NEW_TOKENS, Prompts
from steering_profiles import find_profile, save_profile

BATCHES = (1, 8, 32)
STOCK = "stock vLLM"
EVERYWHERE = "everywhere"
"""Name of the shipped profile without its conditions."""


@dataclass(frozen=True)
class Contender:
    """What is measured: an engine, and what the requests of a batch ask for in turn."""

    engine: str
    """``stock``, or what the plugin serves: profiles with ``conditions``, or ``none`` with one."""
    steering: list[str] | None = None


CONTENDERS = {
    STOCK: Contender("stock"),
    "stock vLLM, again": Contender("stock"),
    "plugin, unsteered": Contender("none"),
    "plugin, 1 profile": Contender("none", [EVERYWHERE]),
    "plugin, 8 profiles": Contender("none", [f"{EVERYWHERE}@{strength / 8}" for strength in range(1, 9)]),
    "plugin with conditions, unsteered": Contender("conditions"),
    "plugin with conditions, 1 profile": Contender("conditions", ["parentheses"]),
    "plugin with conditions, 8 profiles": Contender(
        "conditions", [f"parentheses@{strength / 8}" for strength in range(1, 9)]
    ),
}

Seconds = dict[str, dict[int, list[float]]]
"""Of each round, by contender and batch size."""


class Engine:
    """A process of vLLM that runs only while it is measured."""

    def __init__(self, dtype: str, plugins: str, settings: Mapping[str, object] | None = None) -> None:
        """Start it with the plugins of these names, and with settings of ours."""
        config = json.dumps({} if settings is None else {"steering": settings})
        script = Path(__file__).parent / "peers" / "vllm_engine.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script), model_folder(), dtype, config],
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
def engines(dtype: str) -> Iterator[dict[str, Engine]]:
    """Yield the engines of the contenders."""
    shipped = find_profile("parentheses")
    # A head may have a scale under each of several conditions; here it has one.
    everywhere = {(head.layer, head.head): head.model_copy(update={"when": None}) for head in shipped.heads}
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        save_profile(
            shipped.model_copy(update={"name": EVERYWHERE, "when": None, "heads": tuple(everywhere.values())}), folder
        )
        started = {}
        for name, plugins, settings in (
            ("stock", "", None),
            ("none", "steering", {"profiles": folder, "shipped": False}),
            ("conditions", "steering", None),
        ):
            started[name] = Engine(dtype, plugins, settings)
            running.callback(started[name].end)
        yield started


def measure_all(dtype: str, rounds: int, new_tokens: int, console: Console) -> tuple[Seconds, Seconds]:
    """Return the seconds of each round of each contender at each batch size, by the clock and of computing."""
    prompts, order = Prompts(model_folder()), random.Random(0)
    clock: Seconds = {name: {batch: [] for batch in BATCHES} for name in CONTENDERS}
    computing: Seconds = {name: {batch: [] for batch in BATCHES} for name in CONTENDERS}
    console.print("starting vLLM three times")
    with engines(dtype) as started:
        for batch in BATCHES:
            for contender in CONTENDERS.values():
                started[contender.engine].measure(prompts.take(batch), 4, contender.steering)  # warm up
            for _ in track(range(rounds), f"batch {batch}", console=console):
                for name in order.sample(list(CONTENDERS), len(CONTENDERS)):
                    engine, steering = started[CONTENDERS[name].engine], CONTENDERS[name].steering
                    took, computed = engine.measure(prompts.take(batch), new_tokens, steering)
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
    parser.add_argument("--rounds", type=number_of_rounds, default=9)
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
