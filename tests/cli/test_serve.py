"""``steer serve`` as a process: its start, its answers meanwhile, and its end."""

import os
import pty
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from steering_profiles.store import save_profile
from tests.builders import build_model, build_profile
from tests.cli.subprocesses import STEER, Forked, started
from tests.serving import wait_until_ready

LONG = {"prompt": "x", "max_tokens": 150, "temperature": 1, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "model"
    loaded = build_model("llama", dtype=torch.float32, layers=6)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@contextmanager
def forked(model: Path, *options: str) -> Iterator[tuple[Forked, str]]:
    """Start a server from an interpreter that has imported its modules; yield it and its URL."""
    port = free_port()
    command = ("serve", "--model", str(model), "--dtype", "float32", *options)
    with started(*command, env={"STEER_PORT": port}) as process:
        yield process, f"http://127.0.0.1:{port}"


@contextmanager
def installed(model: Path | str, *options: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a server by the installed command; yield its process and its URL."""
    port = free_port()
    command = [STEER, "serve", "--model", str(model), "--dtype", "float32", *options]
    process = subprocess.Popen(command, env=os.environ | {"STEER_PORT": port} | env)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def test_a_second_signal_ends_the_server_at_once(model: Path):
    with forked(model, "--shutdown-grace", "600") as (process, url):
        wait_until_ready(url, process)
        with httpx.stream("POST", f"{url}/v1/completions", json=LONG | {"n": 16}, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            while httpx.get(f"{url}/ready").status_code == 200:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 128 + signal.SIGTERM


def test_a_signal_lets_a_running_stream_finish(model: Path):
    with forked(model) as (process, url):
        wait_until_ready(url, process)
        with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            *_, last = (line for line in lines if line)
        assert last == "data: [DONE]"
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("0.0.0.0", "0.0.0.0")])
def test_the_printed_url_answers(model: Path, host: str, shown: str):
    with forked(model, "--host", host, "--insecure") as (process, url):
        while " on http" not in (written := process.written("stderr")):
            assert process.poll() is None, written
            time.sleep(0.01)
        greeting = next(line for line in written.splitlines() if " on http" in line).split()[-1]
        assert greeting == url.replace("127.0.0.1", shown)
        assert httpx.get(f"{greeting}/ready").status_code == 200


def test_ctrl_c_stops_the_server_with_the_status_of_other_commands(model: Path):
    with installed(model) as (process, url):
        wait_until_ready(url, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 128 + signal.SIGINT


@pytest.fixture
def profiles(model: Path, tmp_path: Path) -> Path:
    """A folder with the profile ``mine`` of the model."""
    loaded = build_model("llama", dtype=torch.float32, layers=6)
    for scale in (2.0, 3.0):
        save_profile(build_profile(loaded, "mine", heads=[(0, 1, scale)]), tmp_path / str(scale))
    shutil.copytree(tmp_path / "2.0", tmp_path / "profiles")
    return tmp_path / "profiles"


def summary(url: str) -> str:
    return str(httpx.get(f"{url}/v1/profiles/mine").json()["summary"])


@pytest.mark.parametrize("poll", ["0", "0.1"])
def test_changed_profiles_are_read_on_sighup_or_when_the_folder_is_looked_at(model: Path, profiles: Path, poll: str):
    options = ("--force-profiles", "--profiles", str(profiles), "--profiles-poll", poll)
    with forked(model, *options) as (process, url):
        wait_until_ready(url, process)
        assert summary(url) == "1 heads x 2"
        shutil.copy(profiles.parent / "3.0" / "mine.json", profiles)
        if poll == "0":
            time.sleep(0.5)
            assert summary(url) == "1 heads x 2"
            process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while summary(url) != "1 heads x 3":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_closes_stops_the_server_unless_it_was_started_with_nohup(model: Path, nohup: bool):
    port = free_port()
    ours, its = pty.openpty()
    command = [*(["nohup"] * nohup), STEER, "serve", "--model", str(model), "--dtype", "float32", "--port", port]
    process = subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=its, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        os.close(its)
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        os.close(ours)
        if nohup:
            time.sleep(0.5)
            assert httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
        else:
            assert process.wait(timeout=10) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait()


def only_the_model(cache: Path) -> bool:
    """Return whether a cache holds the complete default model and no other folder."""
    folders = [path for path in cache.iterdir() if path.is_dir()]
    return len(folders) == 1 and {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(folders[0]))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_first_start_that_is_killed_does_not_block_the_next(tmp_path: Path, number: signal.Signals, status: int):
    with installed("embedded", "--cache-dir", str(tmp_path)) as (process, _):
        while not any(path.is_dir() for path in tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(2)
        process.send_signal(number)
        assert process.wait(timeout=5) == status
    assert not only_the_model(tmp_path)
    with installed("embedded", "--cache-dir", str(tmp_path)) as (process, url):
        wait_until_ready(url, process, seconds=200)
    assert only_the_model(tmp_path)


@pytest.mark.slow
def test_two_servers_that_start_together_on_one_empty_cache_both_answer(tmp_path: Path):
    with (
        installed("embedded", "--cache-dir", str(tmp_path)) as (one, first),
        installed("embedded", "--cache-dir", str(tmp_path)) as (other, second),
    ):
        texts = set()
        for process, url in ((one, first), (other, second)):
            wait_until_ready(url, process, seconds=200)
            body = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
            texts.add(httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"])
    assert len(texts) == 1
    assert "Paris" in texts.pop()
    assert only_the_model(tmp_path)


def test_a_signal_while_the_model_loads_does_not_wait_for_it():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # a hub that takes its time
        installed("someone/model", HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}") as (process, url),
    ):
        asking, _ = silent.accept()
        with asking:
            assert httpx.get(f"{url}/health").status_code == 200
            assert httpx.get(f"{url}/ready").status_code == 503
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0
