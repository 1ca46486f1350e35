"""Servers side by side over HTTP, under vLLM's load generator: throughput, time to first token, time between tokens.

python -m benchmarks.serving [--runs N] [--servers NAME ...] [--out FILE.json]

The servers and our engine without HTTP run one at a time, because an idle server may still use the processor. No prompt
is sent twice, so that no prefix cache helps. A server that answers one request at a time takes most of the hour, so it
takes part in the first round only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.contenders import CONCURRENCIES, closed_loop
from benchmarks.machine import machine, model_folder
from benchmarks.options import number_of_rounds
from benchmarks.peers import environments
from benchmarks.peers.environments import PeerUnavailable
from benchmarks.prompts import NEW_TOKENS, random_prompts
from benchmarks.workers import worker

PROMPT_TOKENS = 64
LONG_PROMPT_TOKENS = 4000
FIGURES = ("output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_itl_ms", "p99_itl_ms")
OURS = "steering-server"
VLLM = "vLLM"

_LOAD = Path(environments.__file__).with_name("load.py")  # a path, not an import: it runs in vLLM's environment

Figures = dict[str, float]
Engine = dict[int, list[float]]
"""Number of concurrent requests -> tokens per second of each run."""


@dataclass(frozen=True)
class Server:
    """A server: its command, its address, and the fields that its requests need."""

    name: str
    command: Sequence[str]
    port: int
    backend: str = "openai"
    extra_body: dict[str, str] = field(default_factory=dict)
    takes_long_prompts: bool = True
    one_at_a_time: bool = False
    """Whether it answers concurrent requests one after the other."""
    ready: str = "/health"
    """Path that answers 200 once the model is loaded."""

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"


def servers(console: Console, vllm: environments.Environment) -> list[Server]:
    """Return the servers that are available."""
    model, steer = model_folder(), str(Path(sys.executable).parent / "steer")
    vllm_serve = [str(vllm.python), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    found = [
        Server(
            OURS,
            [steer, "serve", "--port", "8121", "--served-name", model, "--log-level", "warning"],
            8121,
            ready="/ready",
        ),
        Server(
            VLLM,
            [*vllm_serve, "--model", model, "--port", "8122", "--dtype", "bfloat16", "--max-model-len", "8192"],
            8122,
        ),
    ]
    try:
        peer = environments.transformers_serve(console)
    except PeerUnavailable as exc:
        console.print(f"transformers serve is left out: {exc}", style="yellow", markup=False)
    else:
        # It does not accept ignore_eos; the length is set by a generation config.
        length = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS, "do_sample": False}
        extra = {"generation_config": json.dumps(length)}
        plain = [str(peer.python.parent / "transformers"), "serve", model, "--dtype", "bfloat16"]
        found.append(
            Server(
                "transformers serve",
                [*plain, "--port", "8123"],
                8123,
                "plain",
                extra,
                takes_long_prompts=False,
                one_at_a_time=True,
            )
        )
        batching = [*plain, "--continuous-batching", "--port", "8124"]
        found.append(
            Server("transformers serve, continuous batching", batching, 8124, "plain", extra, takes_long_prompts=False)
        )
    return found


@contextmanager
def started(server: Server) -> Iterator[psutil.Process]:
    """Start a server and wait until it answers."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(server.command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(server, process)
            yield psutil.Process(process.pid)
        except RuntimeError:
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
            raise
        finally:
            process.terminate()
            process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with status {process.returncode}")
        try:
            if httpx.get(f"{server.url}{server.ready}").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"{server.name} did not answer within {seconds:.0f} s")


class Load:
    """vLLM's load generator."""

    def __init__(self, environment: environments.Environment) -> None:
        self._python = environment.python
        self._seeds = count(1)

    @contextmanager
    def running(self, server: Server, at_once: int, requests: int, *, answer: int = NEW_TOKENS) -> Iterator[Figures]:
        """Send requests to ``server`` inside the context. The yielded figures are filled when the context ends."""
        figures: Figures = {}
        with tempfile.TemporaryDirectory() as folder:
            options = {
                "backend": server.backend,
                "base-url": server.url,
                "endpoint": "/v1/completions",
                "model": model_folder(),
                "dataset-name": "random",
                "random-input-len": PROMPT_TOKENS,
                "random-output-len": answer,
                "num-prompts": requests,
                "max-concurrency": at_once,
                "temperature": 0,
                "seed": next(self._seeds),
                "percentile-metrics": "ttft,itl",
                "metric-percentiles": "99",
                "result-dir": folder,
                "result-filename": "result.json",
            }
            command = [str(self._python), str(_LOAD), "--ignore-eos", "--disable-tqdm", "--save-result"]
            command += [word for option, value in options.items() for word in (f"--{option}", str(value))]
            if server.extra_body:
                command += ["--extra-body", json.dumps(server.extra_body)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            yield figures
            said, _ = process.communicate()
            result = Path(folder) / "result.json"
            measured = json.loads(result.read_text()) if result.exists() else {"failed": requests}
            if measured["failed"]:
                raise RuntimeError(f"{server.name}: {measured['failed']} of {requests} requests failed: {said[-2000:]}")
            figures.update({name: measured[name] for name in FIGURES})

    def measure(self, server: Server, at_once: int, requests: int) -> Figures:
        """Send requests to ``server`` and return the measured figures."""
        with self.running(server, at_once, requests) as figures:
            pass
        return figures


@dataclass
class Result:
    """Measurements of one server; one entry per run."""

    by_load: dict[int, list[Figures]] = field(default_factory=lambda: {at_once: [] for at_once in CONCURRENCIES})
    long_prompts: list[Figures] = field(default_factory=list)
    """Figures of 32 concurrent requests while prompts of ``LONG_PROMPT_TOKENS`` tokens arrived one after the other."""
    resident: list[tuple[float, float]] = field(default_factory=list)
    """Resident memory before and after the run, in MiB."""


def measure(chosen: Sequence[Server], generator: Load, runs: int, console: Console) -> tuple[Engine, dict[str, Result]]:
    """Measure our engine and all servers in turn, ``runs`` times; return the figures of every run."""
    engine: Engine = {at_once: [] for at_once in CONCURRENCIES}
    results = {server.name: Result() for server in chosen}
    turns = [
        (run, server)
        for run in range(runs)
        for server in (None, *chosen)
        if not (run and server and server.one_at_a_time)
    ]
    for run, server in track(turns, "measuring servers", console=console):
        if server is None:
            for at_once, speeds in engine.items():
                speeds.append(measure_engine(at_once, run))
        else:
            measure_server(server, generator, results[server.name], run)
    return engine, results


def measure_server(server: Server, generator: Load, result: Result, run: int) -> None:
    """Measure one run of ``server`` and add the figures to ``result``."""
    with started(server) as process:
        before = memory(process)
        for at_once in CONCURRENCIES:
            result.by_load[at_once].append(generator.measure(server, at_once, _requests(at_once)))
        if server.takes_long_prompts:
            result.long_prompts.append(measure_long_prompts(server, generator, run))
        result.resident.append((before, memory(process)))


def measure_long_prompts(server: Server, generator: Load, run: int) -> Figures:
    """Return the figures of 32 concurrent requests while prompts of ``LONG_PROMPT_TOKENS`` tokens arrive in sequence.

    This process sends the long prompts: starting a second load generator would keep the cores busy for ten seconds.
    """
    with generator.running(server, 32, 128, answer=128) as seen:
        time.sleep(10)  # the load generator takes a while to start
        for prompt in random_prompts(4, LONG_PROMPT_TOKENS, seed=run):
            body = {"model": model_folder(), "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
            httpx.post(f"{server.url}/v1/completions", json=body, timeout=300).raise_for_status()
    return seen


def measure_engine(at_once: int, run: int) -> float:
    """Return the tokens per second of the engine under the same load, without HTTP."""
    prompts = random_prompts(_requests(at_once), PROMPT_TOKENS, seed=1000 * at_once + run)
    with worker([sys.executable, "-m", "benchmarks.contenders", closed_loop(at_once)]) as engine:
        engine.measure(random_prompts(2, PROMPT_TOKENS, seed=0), new_tokens=2)  # warm up
        return _requests(at_once) * NEW_TOKENS / engine.measure(prompts)


def memory(process: psutil.Process) -> float:
    """Return the resident memory of a server and its children, in MiB."""
    resident: int = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
    return resident / 2**20


def show(results: dict[str, Result], engine: Engine) -> Table:
    """Return a table of medians over runs. The share of the engine's speed is a median over the rounds' shares."""
    title = "tokens/s, time to first token and between tokens in ms (median / 99th percentile)"
    table = Table("", *(f"{at_once} at once" for at_once in CONCURRENCIES), title=title)
    table.add_row("our engine, without HTTP", *(f"{statistics.median(speeds):.0f}" for speeds in engine.values()))
    if OURS in results:
        shares = [_share(results[OURS].by_load[at_once], engine[at_once]) for at_once in CONCURRENCIES]
        table.add_row("share of it left over HTTP", *(f"{share:.2f}" for share in shares))
    for name, result in results.items():
        table.add_row(name, *(_cell(result.by_load[at_once]) for at_once in CONCURRENCIES))
    return table


def _cell(figures: Sequence[Figures]) -> str:
    speed, ttft, ttft_99, itl, itl_99 = (statistics.median(one[name] for one in figures) for name in FIGURES)
    return f"{speed:.0f}\n{ttft:.0f} / {ttft_99:.0f}\n{itl:.0f} / {itl_99:.0f}"


def _share(figures: Sequence[Figures], engine: Sequence[float]) -> float:
    return statistics.median(one["output_throughput"] / alone for one, alone in zip(figures, engine, strict=True))


def _requests(at_once: int) -> int:
    return max(4, 2 * at_once)


def main() -> None:
    """Measure, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=number_of_rounds, default=2)
    parser.add_argument("--servers", nargs="*", help="names of the servers to measure (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving.json"))
    arguments = parser.parse_args()
    console = Console(stderr=True)
    try:
        vllm = environments.vllm(console)
    except PeerUnavailable as exc:
        console.print(f"servers cannot be measured: the load generator is part of vLLM, which {exc}", markup=False)
        return
    generator = Load(vllm)
    known = servers(console, vllm)
    chosen = [server for server in known if server.name in (arguments.servers or [server.name])]
    engine, results = measure(chosen, generator, arguments.runs, console)
    shown = Console()
    shown.print(show(results, engine))
    for name, result in results.items():
        before, after = (statistics.median(one[index] for one in result.resident) for index in (0, 1))
        shown.print(f"{name}: {before:.0f} MiB resident at first, {after:.0f} MiB at last")
        if result.long_prompts:
            median, last = (statistics.median(one[name] for one in result.long_prompts) for name in FIGURES[3:])
            between = f"{median:.0f} / {last:.0f} ms between tokens"
            shown.print(f"{name}: {between} at 32 at once while prompts of {LONG_PROMPT_TOKENS} tokens arrive")
    record = {
        "machine": machine(),
        "engine": engine,
        "servers": {name: asdict(result) for name, result in results.items()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
