"""Debian's Prometheus, in a process of its own, which reads a server's metrics every second."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serving import free_port


def require(command: str) -> str:
    """Return the path of one of Prometheus's commands. Without it the test is skipped, but fails in CI."""
    found = shutil.which(command)
    if found is None:
        reason = f"{command} is not installed: apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Prometheus:
    """A running Prometheus."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression has now: its time series, each with labels and value."""
        answer = self._http.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the sum over an expression's time series; None if it has none."""
        found = self.query(expression)
        return sum(float(one["value"][1]) for one in found) if found else None

    def names(self) -> set[str]:
        """Return the names of all metrics."""
        answer = self._http.get("/api/v1/label/__name__/values").json()
        return set(answer["data"])

    def targets(self) -> list[dict[str, Any]]:
        """Return what Prometheus reads, and whether it could."""
        answer = self._http.get("/api/v1/targets").json()
        found: list[dict[str, Any]] = answer["data"]["activeTargets"]
        return found


@contextmanager
def watching(url: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus on the server at ``url``; it keeps everything in ``folder``."""
    command, port = require("prometheus"), free_port()
    job = {"job_name": "steering-server", "static_configs": [{"targets": [url.removeprefix("http://")]}]}
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    options = {
        "config.file": config,
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
        "log.level": "warn",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [command, *(f"--{name}={value}" for name, value in options.items())], stderr=log, stdout=log
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
                _wait(http, process, folder / "log")
                yield Prometheus(http)
        finally:
            process.terminate()
            process.wait(20)


def _wait(http: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if http.get("/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("Prometheus was not ready in time")
