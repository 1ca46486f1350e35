"""Every answer and its log line have the same request id: the request's own, if it is safe to show."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from tests.api.logged import request_line
from tests.serving import living

FITTING = [
    "a", "0", "x" * 128, "req_9f8A-1.2~3", "6f1c7a9e-0f0a-4b64-9a55-0c5b3a9c1f5e", "00-4bf92f3577b34da6-00f067aa-01",
    "Root=1-67891233-abcdef012345678912345678", "c29tZSBiYXNlNjQ+/w==", "user@host:8000/7",
]  # fmt: skip

UNFIT = [
    b"", b"x" * 129, b"x" * 5000, b"two words", b"a,b", b'a"b', b"a'b", b"a;b", b"<b>", b"a\tb", b"a\x1b[31m",
    b"a\\nb", b"{}", b"%0a", "ü".encode(), "ü".encode("latin-1"), b"\xff", b"\x7f",
]  # fmt: skip

ASKED: dict[str, tuple[int, dict[str, Any]]] = {
    "an answer": (200, {"method": "GET", "url": "/v1/models"}),
    "a HEAD": (200, {"method": "HEAD", "url": "/v1/models"}),
    "a completion": (200, {"method": "POST", "url": "/v1/completions", "json": {"prompt": "x", "max_tokens": 1}}),
    "a stream": (
        200,
        {"method": "POST", "url": "/v1/completions", "json": {"prompt": "x", "max_tokens": 2, "stream": True}},
    ),
    "a wrong value": (400, {"method": "POST", "url": "/v1/completions", "json": {"prompt": "x", "max_tokens": -1}}),
    "no such profile": (404, {"method": "GET", "url": "/v1/profiles/nope"}),
    "no such route": (404, {"method": "GET", "url": "/nowhere"}),
    "a wrong method": (405, {"method": "DELETE", "url": "/v1/models"}),
    "too large a body": (413, {"method": "POST", "url": "/v1/completions", "content": b"x" * (17 * 2**20)}),
}

Ask = Callable[..., tuple[httpx.Response, str]]


@pytest.fixture
def ask(http: httpx.Client) -> Ask:
    """Send a request with these ids; return its answer and the id in its log line."""

    def send(ids: Sequence[bytes], method: str = "GET", url: str = "/v1/models", **body: Any):
        headers = [(b"X-Request-Id", each) for each in ids]
        answers: list[httpx.Response] = []

        def one() -> httpx.Response:
            answers.append(http.request(method, url, headers=headers, **body))
            return answers[0]

        line = request_line(one)
        return answers[0], line["request_id"]

    return send


@pytest.mark.parametrize("given", FITTING)
def test_a_requests_own_id_is_kept(ask: Ask, given: str):
    response, logged = ask([given.encode()])
    assert response.headers.get_list("x-request-id") == [given] == [logged]


@pytest.mark.parametrize("given", UNFIT, ids=lambda given: ascii(given[:20]))
def test_an_unsafe_id_is_replaced(ask: Ask, given: bytes):
    response, logged = ask([given])
    (made,) = response.headers.get_list("x-request-id")
    assert len(made) == 32
    assert int(made, 16) >= 0
    assert made == logged


def test_several_different_ids_are_replaced(ask: Ask):
    response, logged = ask([b"one", b"other"])
    (made,) = response.headers.get_list("x-request-id")
    assert made == logged
    assert made not in ("one", "other", "one, other")


def test_an_id_given_twice_is_kept(ask: Ask):
    response, _ = ask([b"one", b"one"])
    assert response.headers.get_list("x-request-id") == ["one"]


@pytest.mark.parametrize(("status", "request_"), ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("ids", [[b"mine-1"], []], ids=["given", "made"])
def test_every_kind_of_answer_has_the_id(ask: Ask, status: int, request_: dict[str, Any], ids: list[bytes]):
    response, logged = ask(ids, **request_)
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == [logged]
    assert (logged == "mine-1") is bool(ids)


def test_a_request_refused_while_the_model_loads_has_the_id():
    with living(Future()) as (url, _):
        response = httpx.post(f"{url}/v1/completions", content=json.dumps({}), headers={"x-request-id": "mine-1"})
    assert (response.status_code, response.headers["x-request-id"]) == (503, "mine-1")
