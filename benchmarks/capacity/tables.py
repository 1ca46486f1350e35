"""The tables of docs/scaling.md.

python -m benchmarks.capacity.tables
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.capacity.calibration import BATCHES, RESULT
from benchmarks.capacity.hardware import B200, H100, H200, Cpu
from benchmarks.capacity.roofline import (
    Layout,
    cpu_tokens_per_second,
    decode_seconds,
    kv_tokens,
    prefill_seconds,
    weights,
)
from benchmarks.capacity.routing import POLICIES, Traffic, simulate
from benchmarks.capacity.shapes import LLAMA31_405B, LLAMA33_70B, QWEN25_7B, SMOLLM2_135M, Shape

SEQUENCES = 256
CONTEXT = 2048
LAYOUTS: tuple[tuple[Shape, Layout], ...] = (
    (QWEN25_7B, Layout(H100)),
    (LLAMA33_70B, Layout(H100, tensor=4)),
    (LLAMA33_70B, Layout(H200, tensor=2)),
    (LLAMA33_70B, Layout(H100, tensor=2, weight_bytes=1)),
    (LLAMA31_405B, Layout(H100, tensor=8, weight_bytes=1)),
    (LLAMA31_405B, Layout(H200, tensor=8)),
    (LLAMA31_405B, Layout(H100, tensor=8, pipeline=2)),
    (LLAMA31_405B, Layout(B200, tensor=8)),
)
_GPU_HOURS_PER_LOSS = 16_384 * 54 * 24 / 419
"""Of the training of Llama 3 (arXiv 2407.21783, section 3.3.4): 419 unexpected interruptions in 54 days."""


def calibration(result: dict[str, Any] | None = None) -> list[str]:
    """Return the roofline's throughput of this machine beside the measured one."""
    found = json.loads(RESULT.read_text()) if result is None else result
    cpu = Cpu(
        found["bandwidth"], {int(rows): rate for rows, rate in found["products"].items()}, found["operator_seconds"]
    )
    rows = []
    for batch in BATCHES:
        predicted = cpu_tokens_per_second(SMOLLM2_135M, cpu, batch, found["prompt_tokens"], found["new_tokens"])
        measured = batch * found["new_tokens"] / statistics.median(found["seconds"][str(batch)])
        rows.append((batch, f"{predicted:.1f}", f"{measured:.1f}", f"{predicted / measured - 1:+.0%}"))
    return table(("at once", "predicted tokens/s", "measured tokens/s", "difference"), rows)


def memory() -> list[str]:
    """Return what fills a GPU, and what is left for keys and values."""
    rows = []
    for shape, layout in LAYOUTS:
        heads, neurons = (shape.table_bytes(SEQUENCES, neurons=given) for given in (False, True))
        tokens = kv_tokens(shape, layout, tables=neurons)
        rows.append(
            (
                shape.name,
                layout,
                f"{weights(shape, layout) / 1e9:.1f} GB",
                f"{shape.kv_bytes_per_token(2) / 1e3:.0f} kB",
                f"{tokens:,}",
                f"{heads / layout.gpus / 1e6:.1f} MB",
                f"{neurons / layout.gpus / 1e6:.0f} MB",
            )
        )
    header = ("model", "layout", "weights per GPU", "KV per token", "KV tokens", "tables, heads", "tables, neurons too")
    return table(header, rows)


def speed() -> list[str]:
    """Return the tokens per second of a replica, and what steering costs."""
    rows = []
    for shape, layout in LAYOUTS:
        cells = []
        for sequences in (1, 32, SEQUENCES):
            fits = sequences * CONTEXT <= kv_tokens(shape, layout)
            seconds = decode_seconds(shape, layout, sequences, CONTEXT)
            cells.append(f"{sequences / seconds:,.0f}" if fits else "no room")
        steered = decode_seconds(shape, layout, 32, CONTEXT, steered=True) / decode_seconds(shape, layout, 32, CONTEXT)
        prompt = prefill_seconds(shape, layout, CONTEXT)
        rows.append((shape.name, layout, *cells, f"{1e3 * prompt:.0f} ms", f"{steered - 1:.2%}"))
    header = ("model", "layout", "1 at once", "32", f"{SEQUENCES}", f"a prompt of {CONTEXT:,}", "steering, 32 at once")
    return table(header, rows)


def arms(new: int = 300) -> list[str]:
    """Return the GPU time of a request with several arms that share their prompt, over that of one answer."""
    rows = []
    for shape, layout in (LAYOUTS[0], LAYOUTS[1], LAYOUTS[5]):
        prompt = prefill_seconds(shape, layout, CONTEXT)
        answer = new * decode_seconds(shape, layout, 32, CONTEXT) / 32
        shared = [(prompt + count * answer) / (prompt + answer) for count in (2, 4, 8)]
        rows.append((shape.name, layout, f"{prompt / (prompt + answer):.0%}", *(f"{one:.2f}" for one in shared)))
    header = ("model", "layout", "prompt's share", "2 arms", "4", "8")
    return table(header, rows)


def mixed(replicas: int = 1000) -> list[str]:
    """Return what routing finds in replicas' caches, with one profile and with eight."""
    rows = []
    for policy in POLICIES:
        cells = []
        for profiles in (1, 8):
            outcome = simulate(Traffic(replicas, prefixes=2 * replicas, profiles=profiles), policy)
            cells += [f"{outcome.found:.0%}", f"{outcome.fullest:.1f}"]
        rows.append((policy, *cells))
    header = ("router", "found, 1 profile", "fullest / mean", "found, 8 profiles", "fullest / mean")
    return table(header, rows)


def losses(replicas: int = 1000) -> list[str]:
    """Return how often a replica is lost among many, and how many requests with it."""
    rows = []
    for shape, layout in (LAYOUTS[0], LAYOUTS[1], LAYOUTS[5]):
        per_day = replicas * layout.gpus * 24 / _GPU_HOURS_PER_LOSS
        prompt, answer = prefill_seconds(shape, layout, CONTEXT), 300 * decode_seconds(shape, layout, 32, CONTEXT)
        begun = answer / (prompt + answer)
        per_replica = 86_400 * 32 / (prompt + answer)
        share = per_day * 32 * begun / (replicas * per_replica)
        rows.append((shape.name, layout, f"{per_day:.2f}", f"{per_day * 32 * begun:.0f}", f"{share:.1e}"))
    header = ("model", "layout", "replicas lost per day", "streams cut per day", "share of all requests")
    return table(header, rows)


TABLES = {
    "calibration": calibration,
    "memory": memory,
    "speed": speed,
    "arms": arms,
    "mixed": mixed,
    "losses": losses,
}


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    shown = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    shown[1] = "|" + "---|" * len(header)
    return shown


def main() -> None:
    """Print all tables."""
    for name, lines in TABLES.items():
        print(f"\n{name}\n", *lines(), sep="\n")


if __name__ == "__main__":
    main()
