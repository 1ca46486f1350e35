"""The roofline beside this machine: its properties are measured apart from any model, and the engine itself.

All with one thread and by computing time, not by the clock, since others may use the machine too. The products are
those of the engine's library, on matrices that are not the model's; the engine does not pad small batches here.

python -m benchmarks.capacity.calibration [--rounds N] [--out FILE.json]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from benchmarks.capacity.hardware import Cpu
from benchmarks.capacity.roofline import cpu_tokens_per_second
from benchmarks.capacity.shapes import SMOLLM2_135M
from benchmarks.contenders import NOT_INVARIANT
from benchmarks.machine import machine, model_folder
from benchmarks.options import number_of_rounds
from benchmarks.prompts import PROMPT_TOKENS, Prompts
from benchmarks.workers import worker
from steering_server.engines.local.huge_pages import HugePages
from steering_server.engines.local.prepacking import PrepackedLinear

BATCHES = (1, 8, 32)
NEW_TOKENS = 16
ROWS = (1, 2, 4, 8, 16, 32, 128, 512)
RESULT = Path("benchmarks/results/capacity.json")
_WIDTH = 2048  # of square matrices, which are no shape of the model's
_MATRICES = 12  # 200 MB together, which no cache holds
_SECONDS = 0.3
_THREADS = 1


def measure_machine() -> Cpu:
    """Return the properties of this machine, of one core."""
    torch.set_num_threads(_THREADS)
    memory = HugePages()
    matrices = [PrepackedLinear([torch.nn.Linear(_WIDTH, _WIDTH, bias=False)], memory) for _ in range(_MATRICES)]
    large = torch.randn(64 * 2**20)
    little = torch.randn(1, 576)
    with torch.inference_mode():
        bandwidth = large.numel() * 4 / _seconds_of(lambda: large.sum())
        products = {}
        for rows in ROWS:
            given = torch.randn(rows, _WIDTH)

            def multiply(given: torch.Tensor = given) -> None:
                for matrix in matrices:
                    matrix(given)

            products[rows] = rows * _MATRICES * _WIDTH**2 / _seconds_of(multiply)
        operator = _seconds_of(lambda: [little.mul(1.5) for _ in range(1000)]) / 1000
    return Cpu(bandwidth, products, operator)


def _seconds_of(work: Callable[[], object]) -> float:
    """Return the median computing time of ``work`` over about a third of a second."""
    work()
    taken: list[float] = []
    while sum(taken) < _SECONDS or len(taken) < 3:
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def measure_engine(rounds: int) -> dict[int, list[float]]:
    """Return the computing time in which the engine answers batches of each size."""
    prompts = Prompts(model_folder())
    command = [sys.executable, "-m", "benchmarks.contenders", NOT_INVARIANT]
    seconds: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    with worker(command, {"OMP_NUM_THREADS": str(_THREADS)}) as engine:
        for batch in BATCHES:
            engine.measure(prompts.take(batch), 4)
        for _ in range(rounds):
            for batch in BATCHES:
                began = _computed(engine.pid)
                engine.measure(prompts.take(batch), NEW_TOKENS)
                seconds[batch].append(_computed(engine.pid) - began)
    return seconds


def _computed(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure, print what was predicted and what was measured, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=number_of_rounds, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    before = measure_machine()
    seconds = measure_engine(arguments.rounds)
    after = measure_machine()
    cpu = Cpu(
        statistics.mean((before.bandwidth, after.bandwidth)),
        {rows: statistics.mean((before.products[rows], after.products[rows])) for rows in ROWS},
        statistics.mean((before.operator_seconds, after.operator_seconds)),
    )
    result = {
        "machine": machine(),
        "threads": _THREADS,
        "bandwidth": cpu.bandwidth,
        "products": cpu.products,
        "operator_seconds": cpu.operator_seconds,
        "drift": {rows: after.products[rows] / before.products[rows] for rows in ROWS},
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "seconds": seconds,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for batch in BATCHES:
        predicted = cpu_tokens_per_second(SMOLLM2_135M, cpu, batch, PROMPT_TOKENS, NEW_TOKENS)
        measured = batch * NEW_TOKENS / statistics.median(seconds[batch])
        print(f"{batch}: predicted {predicted:.1f}, measured {measured:.1f} tokens/s: {predicted / measured - 1:+.0%}")


if __name__ == "__main__":
    main()
