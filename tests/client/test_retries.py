"""Requests are sent again when that may help, after pauses, and not otherwise."""

import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest

from steering_client import (
    AsyncSteeringClient,
    BadRequest,
    ConnectionFailed,
    InvalidArgument,
    RateLimited,
    ServerFailure,
    SteeringClient,
    SteeringClientError,
    StreamInterrupted,
    Timeout,
    retrying,
)

CLIENTS = [SteeringClient, AsyncSteeringClient]
APPLIED = {"arm": "baseline", "profile": None, "content_hash": None, "strength": 1.0, "profiles": []}
COMPLETION = {
    "id": "cmpl-1",
    "created": 1,
    "model": "m",
    "steering": APPLIED,
    "choices": [{"index": 0, "text": "done", "finish_reason": "length"}],
}
CHANGE = {"name": "p", "content_hash": None, "replaced": None, "survives_restart": True, "profile": None}


def error(status: int, **headers: str) -> httpx.Response:
    body = {"error": {"message": "no", "type": "t", "param": None, "code": "c"}}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


class Server:
    """Plays a server: gives out its answers one after another, the last one again and again."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers[min(self.requests, len(self.answers) - 1)]
        self.requests += 1
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client would have waited."""
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("steering_client.sync_client.sleep", waited.append)
    monkeypatch.setattr("steering_client.async_client.sleep", wait)
    return waited


def use(client_type: type, server: Server, method: Callable[[Any], Any], **arguments: Any) -> Any:
    transport = httpx.MockTransport(server)
    if client_type is SteeringClient:
        with SteeringClient(transport=transport, **arguments) as client:
            return method(client)

    async def run() -> Any:
        async with AsyncSteeringClient(transport=transport, **arguments) as client:
            return await method(client)

    return anyio.run(run)


def complete(client: Any) -> Any:
    return client.complete("x")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "failure",
    [error(429), error(503), httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.RemoteProtocolError("cut")],
    ids=["busy", "not available", "refused", "reset", "cut off"],
)
def test_a_request_is_sent_again_until_it_is_answered(client: type, failure: Any, pauses: list[float]):
    server = Server(failure, failure, httpx.Response(200, json=COMPLETION))
    assert use(client, server, complete).text == "done"
    assert server.requests == 3
    assert 0 < pauses[0] < pauses[1]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (error(400), BadRequest),
        (error(500), ServerFailure),
        (error(502), ServerFailure),
        (httpx.ReadTimeout("slow"), Timeout),
        (httpx.UnsupportedProtocol("ftp"), ConnectionFailed),
    ],
    ids=["invalid", "failed", "gateway", "timeout", "protocol"],
)
def test_what_would_fail_again_is_not_sent_again(client: type, failure: Any, raised: type, pauses: list[float]):
    server = Server(failure)
    with pytest.raises(raised):
        use(client, server, complete)
    assert (server.requests, pauses) == (1, [])


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("retries", [0, 1, 5])
def test_the_last_error_is_raised_after_as_many_retries_as_asked_for(client: type, retries: int, pauses: list[float]):
    server = Server(error(429))
    with pytest.raises(RateLimited):
        use(client, server, complete, max_retries=retries)
    assert server.requests == 1 + retries
    assert len(pauses) == retries


def test_pauses_double_up_to_a_limit_and_differ_between_clients(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    retries = retrying.Retries(8)
    busy = RateLimited("busy", status=429)
    pauses = [retries.pause_after(busy) for _ in range(8)]
    assert pauses == [0.5, 1, 2, 4, 8, 8, 8, 8]
    monkeypatch.undo()
    assert len({retrying.Retries(1).pause_after(busy) for _ in range(20)}) == 20


@pytest.mark.parametrize("client", CLIENTS)
def test_the_server_says_how_long_to_wait(client: type, pauses: list[float]):
    server = Server(error(429, retry_after="7"), httpx.Response(200, json=COMPLETION))
    use(client, server, complete)
    assert pauses == [7.0]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_wait_of_more_than_a_minute_is_left_to_the_caller(client: type, pauses: list[float]):
    server = Server(error(429, retry_after="61"))
    with pytest.raises(RateLimited) as caught:
        use(client, server, complete)
    assert caught.value.retry_after == 61
    assert (server.requests, pauses) == (1, [])


@pytest.mark.parametrize("client", CLIENTS)
def test_a_change_is_not_made_twice(client: type, pauses: list[float]):
    server = Server(httpx.ReadError("reset"), httpx.Response(200, json=CHANGE))
    with pytest.raises(ConnectionFailed):
        use(client, server, lambda it: it.delete_profile("p"))
    assert server.requests == 1
    server = Server(error(503), httpx.Response(200, json=CHANGE))
    assert use(client, server, lambda it: it.delete_profile("p")).name == "p"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("method", ["health", "ready"])
def test_a_probe_says_at_once_what_it_found(client: type, method: str, pauses: list[float]):
    server = Server(error(503))
    with pytest.raises(ServerFailure):
        use(client, server, lambda it: getattr(it, method)())
    assert server.requests == 1


@pytest.mark.parametrize("value", [-1, 1.5, True, "2", None])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ["max_retries", "max_connections"])
def test_invalid_numbers_are_refused(client: type, name: str, value: Any):
    with pytest.raises(InvalidArgument, match=f"{name} is {value!r}; allowed: a whole number"):
        client(**{name: value})


@contextmanager
def breaking_server(*answers: bytes) -> Iterator[str]:
    """A socket that gives each connection the next of ``answers``, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_all() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    thread = threading.Thread(target=answer_all)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join()
    listener.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(text: str) -> bytes:
    choice = {"index": 0, "text": text}
    return f"data: {json.dumps(COMPLETION | {'choices': [choice]})}\n\n".encode()


def streamed(client_type: type, url: str) -> tuple[list[str], SteeringClientError | None]:
    """Texts that a stream gives, and the error that ends it."""
    texts: list[str] = []
    try:
        if client_type is SteeringClient:
            with SteeringClient(url) as client:
                texts.extend(chunk.text for chunk in client.stream("x"))
        else:

            async def run() -> None:
                async with AsyncSteeringClient(url) as client:
                    async for chunk in client.stream("x"):
                        texts.append(chunk.text)

            anyio.run(run)
    except SteeringClientError as exc:
        return texts, exc
    return texts, None


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_that_breaks_before_its_first_chunk_is_asked_for_again(client: type, pauses: list[float]):
    with breaking_server(b"", HEAD + event("a") + event("b") + b"data: [DONE]\n\n") as url:
        assert streamed(client, url) == (["a", "b"], None)
    assert len(pauses) == 1


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_that_breaks_later_is_an_error(client: type, pauses: list[float]):
    with breaking_server(HEAD + event("a")) as url:
        texts, failure = streamed(client, url)
    assert texts == ["a"]
    assert isinstance(failure, StreamInterrupted)
    assert pauses == []
