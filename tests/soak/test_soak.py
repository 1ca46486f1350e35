"""A server at twice its capacity, with clients who leave, cancel and read slowly.

Two minutes of it, or as many as SOAK_MINUTES says: `make soak` runs half an hour.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.observability.scraping import Scrape, until
from tests.serving import wait_until_ready
from tests.soak.clients import PATIENCE_SECONDS, Clients, Outcomes

MINUTES = float(os.environ.get("SOAK_MINUTES", "2"))
RUNNING, QUEUED = 8, 8
CLIENTS = 2 * (RUNNING + QUEUED)
MAX_GROWTH = 50  # MB

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 * MINUTES + 2 * PATIENCE_SECONDS)]


class Memory:
    """The resident memory of a process, in MB, read every half second."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.readings: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.wait(0.5):
            self.readings.append(self._process.memory_info().rss / 1e6)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        """Growth from the end of the warm-up, a third of the time, to the end."""
        tenth = max(1, len(self.readings) // 10)
        warm = len(self.readings) // 3
        return statistics.median(self.readings[-tenth:]) - statistics.median(self.readings[warm : warm + tenth])


@contextmanager
def server() -> Iterator[tuple[str, psutil.Process]]:
    """The default model in a process of its own, with little room, so that sequences wait and are preempted."""
    options = {
        "port": 0,
        "max-num-seqs": RUNNING,
        "max-queue": QUEUED,
        "max-model-len": 448,
        "dtype": "float32",  # on every CPU, so that as many tokens have room
        "kv-cache-memory": "24MiB",
        "log-level": "warning",
    }
    command = [str(Path(sys.executable).parent / "steer"), "serve"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # On a busy machine threads that wait for each other take turns; one is faster, and leaves a core to the clients.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        greeting = next((line for line in process.stderr if " on http://" in line), None)
        assert greeting is not None, "the server did not start"
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        url = greeting.split(" on ")[1].strip()
        wait_until_ready(url)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        assert process.wait(60) == 0, "the server did not stop as it should"
        process.stderr.close()


def test_a_server_at_twice_its_capacity_serves_on():
    with server() as (url, process), httpx.Client(base_url=url, timeout=60) as http:
        model = http.get("/v1/models").json()["data"][0]["id"]
        clients = Clients(url, model, "parentheses", seed=1)
        memory = Memory(process)
        asyncio.run(clients.run(CLIENTS, 60 * MINUTES))
        memory.stop()
        until(lambda: _is_idle(Scrape(http)), seconds=30)
        files = process.num_fds()
        after = _ask_all_slots(url)
        last = Scrape(http)
    _report(clients.outcomes, memory, last)
    assert clients.outcomes.violations == []
    assert memory.growth < MAX_GROWTH
    assert after == [200] * RUNNING, "a slot is stuck"
    assert files < 60, "connections stay open"
    assert last.value("vllm:request_success_total", finished_reason="error") == 0
    assert last.value("steering_request_errors_total", code="queue_full") > 0, "the server was never full"
    assert last.value("vllm:num_preemptions_total") > 0, "its memory was never full"
    for kind in ("whole: answered", "streamed: answered", "slow: answered", "leaves: left", "cancels: cancelled"):
        assert clients.outcomes.counts[kind] > 0, f"nobody was {kind}"


def _is_idle(seen: Scrape) -> bool:
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    return not any(seen.value(name) for name in names)


def _ask_all_slots(url: str) -> list[int]:
    """Fill every slot at once; return the statuses."""

    async def ask() -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            body = {"prompt": "x", "max_tokens": 16}
            answers = await asyncio.gather(*(http.post("/v1/completions", json=body) for _ in range(RUNNING)))
        return [answer.status_code for answer in answers]

    return asyncio.run(ask())


def _report(outcomes: Outcomes, memory: Memory, last: Scrape) -> None:
    told = {
        "minutes": MINUTES,
        "outcomes": dict(sorted(outcomes.counts.items())),
        "violations": outcomes.violations[:20],
        "memory_growth_mb": round(memory.growth, 1),
        "memory_mb": [round(reading) for reading in memory.readings[:: max(1, len(memory.readings) // 12)]],
        "preemptions": last.value("vllm:num_preemptions_total"),
        "tokens": last.value("vllm:generation_tokens_total"),
        "at": time.strftime("%H:%M:%S"),
    }
    print(json.dumps(told, indent=1, ensure_ascii=False))
