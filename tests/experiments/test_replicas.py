"""Two servers on one PostgreSQL: one report, and no acknowledged outcome is lost when one of them is killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from steering_profiles.store import save_profile
from tests.builders import build_model, profiles_for
from tests.experiments.asking import BODY
from tests.experiments.building import until
from tests.experiments.postgres import Postgres
from tests.serving import free_port, wait_until_ready

pytestmark = pytest.mark.slow
OUTCOMES = 2000
ASK = {"prompt": "x", "max_tokens": 1}


@contextmanager
def replica(folder: Path, database: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run ``steer serve``; yield its URL and its process."""
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "steer"), "serve", "--port", str(port), "--model", str(folder / "model"),
        "--served-name", "tiny", "--profiles", str(folder / "profiles"), "--log-level", "error",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=os.environ | {"STEER_DATABASE_URL": database})
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model and its profiles."""
    root, loaded = tmp_path_factory.mktemp("replicas"), build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(root / "model")
    loaded.tokenizer.save_pretrained(root / "model")
    for profile in profiles_for(loaded):
        save_profile(profile, root / "profiles")
    return root


def post(url: str, path: str, body: Any = None) -> Any:
    response = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert response.is_success, response.text
    return response.json()


def exposures(url: str, users: range) -> list[str]:
    with httpx.Client(base_url=url, timeout=60) as http:
        answers = [http.post("/v1/completions", json=ASK | {"user": f"user-{user}"}).json() for user in users]
    return [answer["exposure"]["id"] for answer in answers]


def test_an_outcome_acknowledged_by_a_server_that_is_killed_is_in_the_report_of_the_other(
    folder: Path, postgresql: Postgres
):
    database = postgresql.empty_database()
    with replica(folder, database) as (one, process), replica(folder, database) as (other, _):
        post(one, "/v1/experiments", BODY)
        post(one, "/v1/experiments/greeting/start")
        until(lambda: "exposure" in post(other, "/v1/completions", ASK | {"user": "user-50"}))
        ids = exposures(one, range(50)) + exposures(other, range(50, 100))
        acknowledged: list[str] = []

        def send() -> None:
            with httpx.Client(base_url=one, timeout=60) as http:
                for number in range(OUTCOMES):
                    outcome = {"exposure": ids[number % 100], "value": 1, "key": f"k{number}"}
                    try:
                        answer = http.post("/v1/experiments/greeting/outcomes", json={"outcomes": [outcome]})
                    except httpx.TransportError:
                        return
                    assert answer.status_code == 200, answer.text
                    acknowledged.append(f"k{number}")

        sending = threading.Thread(target=send)
        sending.start()
        until(lambda: len(acknowledged) > 150)
        process.send_signal(signal.SIGKILL)
        sending.join(60)
        report = httpx.get(f"{other}/v1/experiments/greeting/report", timeout=60).json()
        stored = sum(arm["outcomes"] for arm in report["arms"])
        assert 150 < len(acknowledged) <= stored <= len(acknowledged) + 1 < OUTCOMES
        assert sum(arm["units"] for arm in report["arms"]) == 100
        again = [{"exposure": ids[int(key[1:]) % 100], "value": 1, "key": key} for key in acknowledged]
        sent = post(other, "/v1/experiments/greeting/outcomes", {"outcomes": again})
        assert (sent["stored"], sent["repeated"]) == (0, len(acknowledged))


def test_completions_go_on_while_the_database_is_away(folder: Path, postgresql: Postgres):
    database = postgresql.empty_database()
    with replica(folder, database) as (url, _):
        post(url, "/v1/experiments", BODY)
        post(url, "/v1/experiments/greeting/start")
        before = exposures(url, range(20))
        postgresql.stop()
        try:
            during = exposures(url, range(20, 60))
            body = {"outcomes": [{"exposure": before[0], "value": 1}]}
            refused = httpx.post(f"{url}/v1/experiments/greeting/outcomes", json=body, timeout=60)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "database_unavailable"
            assert refused.headers["retry-after"]
        finally:
            postgresql.start()
        ids = before + during
        assert post(url, "/v1/experiments/greeting/outcomes", {
            "outcomes": [{"exposure": one, "value": 1} for one in ids]
        })["stored"] == 60  # fmt: skip
        report = httpx.get(f"{url}/v1/experiments/greeting/report", timeout=60).json()
        assert sum(arm["exposures"] for arm in report["arms"]) == 60
        assert report["lost_exposures"] == 0
    with replica(folder, database) as (url, _):
        assert exposures(url, range(3)), "what ran goes on after a restart"
