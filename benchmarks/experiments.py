"""The cost of an experiment: one server's throughput with and without one at 32 requests at once, in turns.

Both arms are the baseline, so that the same is computed and nothing but the experiment differs: assignment, the
exposure's record, and the thread that stores it.

python -m benchmarks.experiments [--rounds N] [--requests N] [--new-tokens N] [--out FILE.json]

Shorter answers show the cost of a request larger than it is, and take less time to measure.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track

from benchmarks.machine import machine
from benchmarks.options import number_of_rounds
from benchmarks.prompts import NEW_TOKENS, random_prompts

AT_ONCE = 32
PROMPT_TOKENS = 64
TARGET = 0.98
"""Least share of the throughput without an experiment that is wanted with one."""

_PORT = 8126
_NAME = "cost"
_DEFINITION = {
    "name": _NAME,
    "arms": [{"name": name, "steering": "baseline", "weight": 0.5} for name in ("control", "treatment")],
    "outcome": {"name": "solved"},
    "requests": "all",
}

Speeds = dict[str, list[float]]
"""With or without the experiment -> tokens per second of each turn."""


@contextmanager
def server() -> Iterator[str]:
    """Run a server with a database of its own; yield its URL."""
    url = f"http://127.0.0.1:{_PORT}"
    steer = str(Path(sys.executable).parent / "steer")
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        variables = os.environ | {"STEER_DATABASE_URL": f"sqlite:///{folder}/experiments.sqlite"}
        command = [steer, "serve", "--port", str(_PORT), "--log-level", "warning"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
        try:
            _wait(url, process, Path(log.name))
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}: {log.read_text()[-2000:]}")
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"the server was not ready within {seconds:.0f} s")


@dataclass(frozen=True)
class Load:
    """What is asked in one turn."""

    requests: int = 128
    new_tokens: int = NEW_TOKENS


async def throughput(url: str, seed: int, load: Load, *, exposed: bool) -> float:
    """Return the tokens per second of the requests of ``load``, ``AT_ONCE`` at a time.

    Raises:
        RuntimeError: an answer was an error, or was not assigned although ``exposed`` says so, or the other way.
    """
    prompts, numbers = iter(random_prompts(load.requests, PROMPT_TOKENS, seed=seed)), count()
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:

        async def sender() -> None:
            for prompt in prompts:
                body = {"prompt": prompt, "max_tokens": load.new_tokens, "temperature": 0, "ignore_eos": True}
                response = await http.post("/v1/completions", json=body | {"user": f"{seed}-{next(numbers)}"})
                if response.status_code != 200 or ("x-exposure-id" in response.headers) != exposed:
                    raise RuntimeError(f"status {response.status_code}: {response.text[:200]}")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(sender())
        return load.requests * load.new_tokens / (time.perf_counter() - began)


def measure(url: str, rounds: int, load: Load, console: Console) -> Speeds:
    """Measure both in turn, ``rounds`` times, each of them first in every other round."""
    speeds: Speeds = {"without": [], "with": []}
    httpx.post(f"{url}/v1/experiments", json=_DEFINITION).raise_for_status()
    asyncio.run(throughput(url, 0, Load(AT_ONCE, load.new_tokens), exposed=False))  # warm up
    for number in track(range(rounds), "measuring", console=console):
        for what in ("without", "with") if number % 2 else ("with", "without"):
            if what == "with":
                httpx.post(f"{url}/v1/experiments/{_NAME}/start").raise_for_status()
            seed = 1 + 2 * number + (what == "with")
            speeds[what].append(asyncio.run(throughput(url, seed, load, exposed=what == "with")))
            if what == "with":
                httpx.post(f"{url}/v1/experiments/{_NAME}/stop").raise_for_status()
    return speeds


def ratio(speeds: Speeds) -> float:
    """Return the median over rounds of the throughput with an experiment over that without."""
    pairs = zip(speeds["with"], speeds["without"], strict=True)
    return statistics.median(with_one / without for with_one, without in pairs)


def main() -> None:
    """Measure, print the ratio and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=number_of_rounds, default=7)
    parser.add_argument("--requests", type=int, default=Load.requests)
    parser.add_argument("--new-tokens", type=int, default=Load.new_tokens)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/experiments.json"))
    arguments = parser.parse_args()
    load = Load(arguments.requests, arguments.new_tokens)
    with server() as url:
        speeds = measure(url, arguments.rounds, load, Console(stderr=True))
    found = ratio(speeds)
    medians = {what: statistics.median(each) for what, each in speeds.items()}
    print(f"tokens/s at {AT_ONCE} at once: {medians['without']:.0f} without, {medians['with']:.0f} with an experiment")
    print(f"ratio, median over rounds: {found:.3f}; wanted: at least {TARGET}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"machine": machine(), "load": asdict(load), "ratio": found, "speeds": speeds}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
