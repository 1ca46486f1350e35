"""The life of a server as clients see it: loading, ready, draining, stopped."""

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest
import torch

from steering_profiles.errors import ModelLoadError
from steering_profiles.models import LoadedModel
from steering_profiles.store import Catalogue
from steering_server.api.settings import ApiSettings
from steering_server.engines.local.backend import LocalBackend
from steering_server.generation.backend import Backend
from steering_server.limits import ConnectionLimits, EngineLimits
from tests.builders import build_model
from tests.serving import build_backend, living, slow_steps, wait_until_ready

SHORT = {"prompt": "x", "max_tokens": 2, "temperature": 0}
LONG = {"prompt": "x", "max_tokens": 150, "temperature": 1, "ignore_eos": True, "stream": True}


def small_model() -> LoadedModel:
    return build_model("llama", dtype=torch.float32, layers=6)


def slow(computing: threading.Event) -> LoadedModel:
    """The same with slow steps, the first of which sets ``computing``."""

    def take_time(*_: object) -> None:
        computing.set()
        time.sleep(0.2)

    model = small_model()
    model.model.get_input_embeddings().register_forward_pre_hook(take_time)
    return model


def local_backend(folder: Path, model: LoadedModel | None = None, **limits: int) -> LocalBackend:
    return build_backend(model or small_model(), Catalogue.open(folder, shipped=False), EngineLimits(**limits))


def loaded(folder: Path, model: LoadedModel | None = None, **limits: int) -> Future[Backend]:
    loading: Future[Backend] = Future()
    loading.set_result(local_backend(folder, model, **limits))
    return loading


def error(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()["error"]
    return response.status_code, body["type"], body["code"]


LOADING = (503, "service_unavailable_error", "loading")
DRAINING = (503, "service_unavailable_error", "draining")
CUT_OFF = (503, "service_unavailable_error", "shutdown")


def wait_until_refused(url: str) -> httpx.Response:
    for _ in range(500):
        response = httpx.get(f"{url}/ready")
        if response.status_code != 200:
            return response
        time.sleep(0.01)
    raise AssertionError("the server never began to drain")


@pytest.fixture
def texts() -> list[str]:
    """Events read by :func:`read_stream`."""
    return []


@pytest.fixture
def streaming(texts: list[str]) -> Callable[[str], threading.Thread]:
    """Begin to stream a long completion in a thread, and return it after its first event."""

    def begin(url: str) -> threading.Thread:
        begun = threading.Event()

        def read_stream() -> None:
            with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=60) as response:
                for line in response.iter_lines():
                    texts.append(line.removeprefix("data: "))
                    begun.set()

        thread = threading.Thread(target=read_stream)
        thread.start()
        assert begun.wait(30)
        return thread

    return begin


def test_while_the_model_loads_the_server_is_alive_and_not_ready(tmp_path: Path):
    loading: Future[Backend] = Future()
    with living(loading) as (url, _):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        for response in (
            httpx.get(f"{url}/ready"),
            httpx.get(f"{url}/v1/models"),
            httpx.get(f"{url}/v1/profiles"),
            httpx.post(f"{url}/v1/completions", json=SHORT),
            httpx.post(f"{url}/v1/chat/completions", json={}),
            httpx.put(f"{url}/v1/profiles/mine", json={}),
            httpx.delete(f"{url}/v1/profiles/mine"),
        ):
            assert error(response) == LOADING
            assert int(response.headers["retry-after"]) > 0
        loading.set_result(local_backend(tmp_path))
        wait_until_ready(url)
        assert httpx.get(f"{url}/ready").json() == {"status": "ready", "model": "tiny-llama"}
        assert httpx.post(f"{url}/v1/completions", json=SHORT).status_code == 200


def test_a_server_whose_engine_has_ended_is_alive_and_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backend = local_backend(tmp_path)
    loading: Future[Backend] = Future()
    loading.set_result(backend)
    with living(loading) as (url, _):
        wait_until_ready(url)
        monkeypatch.setattr(backend, "failure", lambda: "a GPU is gone")
        assert httpx.get(f"{url}/health").status_code == 200
        for response in (httpx.get(f"{url}/ready"), httpx.post(f"{url}/v1/completions", json=SHORT)):
            assert error(response) == (503, "service_unavailable_error", "engine_ended")
            assert "a GPU is gone" in response.text


def test_a_model_that_cannot_be_loaded_ends_the_server():
    loading: Future[Backend] = Future()

    def fail_while_serving() -> None:
        with living(loading) as (url, _):
            assert httpx.get(f"{url}/health").status_code == 200
            loading.set_exception(ModelLoadError("no such model"))

    with pytest.raises(ModelLoadError, match="no such model"):
        fail_while_serving()


def test_a_stopping_server_refuses_new_requests_and_finishes_running_ones(
    tmp_path: Path,
    streaming: Callable[[str], threading.Thread],
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
):
    slow_steps(monkeypatch)
    with living(loaded(tmp_path)) as (url, stop):
        wait_until_ready(url)
        reader = streaming(url)
        stop()
        assert error(wait_until_refused(url)) == DRAINING
        refused = httpx.post(f"{url}/v1/completions", json=SHORT)
        assert error(refused) == DRAINING
        assert refused.headers["connection"] == "close"
        assert httpx.get(f"{url}/health").status_code == 200
        assert reader.is_alive(), "the stream was over too soon to show anything"
        reader.join()
    events = [text for text in texts if text]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


def test_a_request_that_runs_longer_than_the_grace_gets_an_error(
    tmp_path: Path,
    streaming: Callable[[str], threading.Thread],
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
):
    slow_steps(monkeypatch)
    with living(loaded(tmp_path), grace=0.1) as (url, stop):
        wait_until_ready(url)
        reader = streaming(url)
        stop()
        reader.join()
    events = [text for text in texts if text]
    last = json.loads(events[-1])["error"]
    assert (last["type"], last["code"]) == CUT_OFF[1:]
    assert "shutting down" in last["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_stopped_before_its_first_token_is_a_503(tmp_path: Path, stream: bool):
    answers: list[httpx.Response] = []
    body = LONG | {"prompt": "a prompt of more than a few tokens", "stream": stream}
    computing = threading.Event()

    def ask(url: str) -> None:
        answers.append(httpx.post(f"{url}/v1/completions", json=body, timeout=60))

    with living(loaded(tmp_path, slow(computing), max_num_batched_tokens=1), grace=0) as (url, stop):
        wait_until_ready(url)
        computing.clear()  # the engine computed something when it started
        asking = threading.Thread(target=ask, args=(url,))
        asking.start()
        assert computing.wait(30)
        stop()
        asking.join()
    (answer,) = answers
    assert error(answer) == CUT_OFF
    assert answer.headers["connection"] == "close"
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(("keep_alive", "open_after"), [(0.2, False), (30, True)])
def test_an_idle_connection_is_closed_after_keep_alive(keep_alive: float, open_after: bool):
    with living(Future(), settings=ApiSettings(connections=ConnectionLimits(keep_alive=keep_alive))) as (url, _):
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port), timeout=1.5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = connection.recv(65536)
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            try:
                assert (connection.recv(1) == b"") is not open_after
            except TimeoutError:
                assert open_after


def test_a_server_without_running_requests_stops_at_once(tmp_path: Path):
    with living(loaded(tmp_path), grace=60) as (url, stop), httpx.Client() as idle:
        wait_until_ready(url)
        idle.get(f"{url}/health")  # its connection stays open
        began = time.monotonic()
        stop()
    assert time.monotonic() - began < 5
