"""The container, built and run for real: `make test-container`."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from steering_profiles.store import save_profile
from tests.builders import build_model, build_profile
from tests.container.conftest import Report
from tests.container.images import Image, unpacked
from tests.container.running import Running, make_volume, running

pytestmark = [pytest.mark.container, pytest.mark.timeout(3600)]

PROMPT = "#print the string 123\nprint(str(str(str(123"
BOTH = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "arms": ["baseline", "parentheses"]}
GB, MB = 1e9, 1e6
LAYERS = ("base", "Python, if the base has none", "user and folders", "dependencies", "steering-server", "weights")


@pytest.fixture(scope="module")
def baked_root(baked: Image) -> Iterator[Path]:
    with unpacked(baked) as root:
        yield root


@pytest.fixture(scope="module")
def none_root(none: Image) -> Iterator[Path]:
    with unpacked(none) as root:
        yield root


@pytest.fixture(scope="module")
def server(baked: Image, baked_root: Path, report: Report, tmp_path_factory) -> Iterator[Running]:
    """The default model's server, with nothing mounted but an empty cache."""
    cache = make_volume(tmp_path_factory.mktemp("volumes") / "cache", baked.config["User"])
    began = time.monotonic()
    with running(baked, baked_root, {"/cache": cache}) as server:
        server.wait_for("/health")
        report.add("start to the first answer of /health", time.monotonic() - began, "s")
        server.wait_for("/ready")
        idle = resident_megabytes(server)
        assert httpx.post(f"{server.url}/v1/completions", json=BOTH, timeout=60).status_code == 200
        report.add("start to the first answered request, weights baked in", time.monotonic() - began, "s", "< 20 s")
        report.add("memory when ready", idle, "MB")
        report.add("memory after the first request", resident_megabytes(server), "MB")
        yield server


def resident_megabytes(server: Running) -> float:
    return int(server.status()["VmRSS"].removesuffix(" kB")) * 1024 / MB


def test_the_image_is_small_without_the_models_weights(baked: Image, none: Image, report: Report):
    report.add("image without the model's weights", none.size / MB, "MB", "< 1500 MB")
    report.add("image with the weights baked in", baked.size / MB, "MB")
    sizes = [round(layer / MB, 1) for layer in baked.layers]
    report.layers.update(zip(LAYERS, sizes, strict=True))
    assert none.size < 1.5 * GB
    assert none.size < baked.size


def test_the_image_has_labels_and_volumes(baked: Image):
    labels = baked.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "steering-server"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert set(baked.config["Volumes"]) == {"/cache", "/profiles"}


def test_the_server_is_process_1_without_privileges(server: Running):
    status = server.status()
    assert status["NSpid"].split()[-1] == "1"
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == 0


def test_the_server_is_alive_ready_and_healthy(server: Running, baked: Image):
    assert server.wait_for("/health").json() == {"status": "ok"}
    assert server.wait_for("/ready").json() == {"status": "ready", "model": "SmolLM2-135M-Instruct"}
    assert server.is_healthy(baked)


def test_a_steered_completion_closes_four_parentheses(server: Running):
    answer = httpx.post(f"{server.url}/v1/completions", json=BOTH, timeout=60).json()
    assert {choice["arm"]: choice["text"] for choice in answer["choices"]} == {
        "baseline": ")))",
        "parentheses": "))))",
    }
    for model, text in (("SmolLM2-135M-Instruct", ")))"), ("SmolLM2-135M-Instruct+parentheses", "))))")):
        body = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
        one = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()
        assert one["choices"][0]["text"] == text


def test_a_stopped_server_finishes_a_stream_and_ends_with_status_0(baked: Image, baked_root: Path, tmp_path: Path):
    cache = make_volume(tmp_path / "cache", baked.config["User"])
    with running(baked, baked_root, {"/cache": cache}, {"STEER_SHUTDOWN_GRACE": "100"}) as server:
        server.wait_for("/ready")
        body = {"prompt": PROMPT, "max_tokens": 60, "temperature": 0, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120) as response:
            lines = (line.removeprefix("data: ") for line in response.iter_lines() if line)
            next(lines)
            os.kill(server.pid, signal.SIGTERM)
            until = time.monotonic() + 10
            while httpx.get(f"{server.url}/ready").status_code == 200:
                assert time.monotonic() < until, "it does not drain"
            refused = httpx.post(f"{server.url}/v1/completions", json=BOTH)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert not server.is_healthy(baked)
            *_, last, done = lines
        assert done == "[DONE]"
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"
        assert server.outside.wait(timeout=20) == 0


def test_variables_select_another_model(none: Image, none_root: Path, tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/model.safetensors").chmod(0o644)  # which is its maker's alone
    save_profile(build_profile(loaded, "strong", heads=[(0, 1, 4.0), (1, 2, -2.0), (2, 0, 3.0)]), tmp_path / "profiles")
    tmp_path.chmod(0o755)
    volumes = {
        "/cache": make_volume(tmp_path / "cache", none.config["User"]),
        "/models": tmp_path / "model",
        "/profiles": tmp_path / "profiles",
    }
    settings = {"STEER_MODEL": "/models", "STEER_SERVED_NAME": "own", "STEER_MAX_NUM_SEQS": "4"}
    with running(none, none_root, volumes, settings) as server:
        assert server.wait_for("/ready").json()["model"] == "own"
        models = [model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]]
        assert models == ["own", "own+strong"]
        body = {"model": "own+strong", "prompt": "x", "max_tokens": 4, "temperature": 0}
        assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200


def test_the_image_without_a_model_says_how_to_get_one(none: Image, none_root: Path, tmp_path: Path):
    cache = make_volume(tmp_path / "cache", none.config["User"])
    with running(none, none_root, {"/cache": cache}) as server:
        assert server.outside.wait(timeout=120) == 1
        (line,) = server.written().strip().splitlines()
        assert line.startswith("error: the weights of the default model SmolLM2-135M-Instruct are not installed")
