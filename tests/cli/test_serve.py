"""``steer serve`` as a process: its start, its answers meanwhile, and its end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from tests.builders import build_model
from tests.serving import wait_until_ready

LONG = {"prompt": "x", "max_tokens": 150, "temperature": 1, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "model"
    loaded = build_model("llama", dtype=torch.float32, layers=6)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def started(model: Path | str, *options: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("steer")), "serve", "--model", str(model), "--dtype", "float32"]
    process = subprocess.Popen(
        [*command, *options], env=os.environ | {"STEER_PORT": str(port)} | env, stderr=subprocess.PIPE
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def test_a_second_signal_ends_the_server_at_once(model: Path):
    with started(model, "--shutdown-grace", "600") as (process, url):
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
    with started(model) as (process, url):
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
    with started(model, "--host", host) as (process, url):
        assert process.stderr is not None
        greeting = next(line for line in process.stderr if b" on http" in line).decode().split()[-1]
        assert greeting == url.replace("127.0.0.1", shown)
        assert httpx.get(f"{greeting}/ready").status_code == 200


def test_ctrl_c_stops_the_server_with_the_status_of_other_commands(model: Path):
    with started(model) as (process, url):
        wait_until_ready(url, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 128 + signal.SIGINT


def only_the_model(cache: Path) -> bool:
    """Return whether a cache holds the complete default model and no other folder."""
    folders = [path for path in cache.iterdir() if path.is_dir()]
    return len(folders) == 1 and {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(folders[0]))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_first_start_that_is_killed_does_not_block_the_next(tmp_path: Path, number: signal.Signals, status: int):
    with started("embedded", "--cache-dir", str(tmp_path)) as (process, _):
        while not any(path.is_dir() for path in tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(2)
        process.send_signal(number)
        assert process.wait(timeout=5) == status
    assert not only_the_model(tmp_path)
    with started("embedded", "--cache-dir", str(tmp_path)) as (process, url):
        wait_until_ready(url, process, seconds=200)
    assert only_the_model(tmp_path)


@pytest.mark.slow
def test_two_servers_that_start_together_on_one_empty_cache_both_answer(tmp_path: Path):
    with (
        started("embedded", "--cache-dir", str(tmp_path)) as (one, first),
        started("embedded", "--cache-dir", str(tmp_path)) as (other, second),
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
        started("someone/model", HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}") as (process, url),
    ):
        asking, _ = silent.accept()
        with asking:
            assert httpx.get(f"{url}/health").status_code == 200
            assert httpx.get(f"{url}/ready").status_code == 503
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0
