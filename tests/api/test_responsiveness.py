"""No request blocks others, whether it is large, invalid or abandoned."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
import structlog
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.tokenization import Vocabulary
from steering_server.generation.tokenizer import TokenizerService
from steering_server.limits import EngineLimits
from tests.api.logged import request_line
from tests.builders import build_model, profiles_for
from tests.serving import serving, slow_steps

LONG = {"prompt": "x", "max_tokens": 500, "temperature": 0, "ignore_eos": True}


def test_an_invalid_value_does_not_fail_other_requests(url, monkeypatch: pytest.MonkeyPatch):
    slow_steps(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(httpx.post, f"{url}/v1/completions", json=LONG, timeout=60)
        time.sleep(0.1)
        assert httpx.post(f"{url}/v1/completions", json={"prompt": "x", "top_k": 10**400}).status_code == 400
        assert not other.done()
        assert other.result().status_code == 200


def test_encoding_a_long_prompt_does_not_block_decoding():
    model = build_model("llama", dtype=torch.float32)
    service = TokenizerService(model.tokenizer, Vocabulary(model.tokenizer), "tiny")
    with ThreadPoolExecutor(1) as pool:
        encoding = pool.submit(service.encode, "x" * 2_000_000)
        time.sleep(0.1)
        tokens = model.tokenizer.encode("abc")
        assert [service.spelling(token).text for token in tokens] == ["a", "b", "c"]
        assert [delta.text for delta in service.echo(tokens, is_all=False)] == ["a", "b", "c"]
        assert not encoding.done()
        encoding.result()


def test_a_text_that_is_much_too_long_is_refused_before_it_is_encoded(http: httpx.Client):
    for path, fields, param in (
        ("/v1/completions", {"prompt": "x" * 10_000_000}, "prompt"),
        ("/v1/completions", {"prompt": ["x", "x" * 10_000_000]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 10_000_000}]}, "messages"),
        ("/v1/completions", {"prompt": [1] * 3_000_000}, "prompt"),
        ("/v1/completions", {"prompt": [[1] * 1000] * 2000}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}] * 100_000}, "messages"),
    ):
        content = json.dumps(fields)
        began = time.process_time()  # of the server's thread too, whatever else the machine does
        response = http.post(path, content=content, headers={"content-type": "application/json"})
        assert time.process_time() - began < 2
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text


def test_a_stream_abandoned_in_the_queue_frees_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow_steps(monkeypatch)
    limits = EngineLimits(max_num_seqs=1, max_queue=1)
    with (
        serving(build_model("llama", dtype=torch.float32), tmp_path, limits=limits) as url,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(httpx.post, f"{url}/v1/completions", json=LONG, timeout=60)
        time.sleep(0.2)
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.stream("POST", f"{url}/v1/completions", json=LONG | {"stream": True}, timeout=0.3),
        ):
            pass
        body = LONG | {"max_tokens": 1}
        while (waiting := httpx.post(f"{url}/v1/completions", json=body, timeout=60)).status_code == 429:
            assert not running.done(), "the place was not free before the running request was over"
            time.sleep(0.05)
        assert (waiting.status_code, running.result().status_code) == (200, 200)


def test_comparing_arms_needs_no_more_of_the_queue_than_generating_them(model: LoadedModel, tmp_path: Path):
    limits = EngineLimits(max_num_seqs=3, max_queue=0)
    with serving(build_model("llama", dtype=torch.float32), tmp_path, profiles_for(model), limits=limits) as url:
        body = {"prompt": "abc", "max_tokens": 4, "logprobs": 0, "arms": ["baseline", "heads", "final"]}
        response = httpx.post(f"{url}/v1/completions", json=body)
        assert response.status_code == 200, response.text
        assert len(response.json()["comparison"]["pairs"]) == 3


def test_a_comparison_that_has_begun_is_not_refused_for_a_queue_that_fills_meanwhile(
    model: LoadedModel, tmp_path: Path
):
    limits = EngineLimits(max_num_seqs=2, max_queue=0)
    over = Event()

    def fill(url: str) -> None:
        while not over.is_set():
            httpx.post(f"{url}/v1/completions", json={"prompt": "abc", "max_tokens": 2})

    with (
        serving(build_model("llama", dtype=torch.float32), tmp_path, profiles_for(model), limits=limits) as url,
        ThreadPoolExecutor(4) as pool,
    ):
        for _ in range(4):
            pool.submit(fill, url)
        compared: list[str] = []
        body = {"prompt": "abc", "max_tokens": 2, "logprobs": 0, "stream": True, "arms": ["baseline", "heads"]}
        try:
            while len(compared) < 20:
                response = httpx.post(f"{url}/v1/completions", json=body)
                if response.status_code == 200:
                    compared.append(response.text)
        finally:
            over.set()
        assert all('"comparison":{' in text and "queue_full" not in text for text in compared)


def test_an_unexpected_error_is_a_500_in_the_same_format_with_the_request_id_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(tokenizer: TokenizerService, text: str) -> tuple[int, ...]:
        raise RuntimeError("a mistake of our own")  # no real failure is known here

    monkeypatch.setattr(TokenizerService, "encode", fail)
    capturing = structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars])
    with serving(build_model("llama", dtype=torch.float32), tmp_path) as url, capturing as lines:
        response = httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "mine-1"})
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "server_error"
        assert "mistake" not in response.text
        (logged,) = [line for line in lines if line["event"] == "unexpected_error"]
        assert logged["request_id"] == response.headers["x-request-id"] == "mine-1"


def test_the_log_has_one_line_per_request_with_model_and_steering_and_nothing_of_the_body(http):
    body = {"prompt": "a secret", "max_tokens": 1, "model": "tiny-llama+heads"}
    answers: list[httpx.Response] = []

    def ask() -> httpx.Response:
        answers.append(http.post("/v1/completions", json=body))
        return answers[0]

    line = request_line(ask)
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/completions", 200)
    assert (line["model"], line["steering"]) == ("tiny-llama+heads", answers[0].headers["x-steering"])
    assert "secret" not in str(line)
