"""A client that is slow, silent, endless or many holds up nobody else, and is refused or cut off in its turn."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import anyio
import httpx
import psutil
import pytest
import torch
from starlette.types import Message, Receive, Scope, Send

from steering_server.api.middleware.body_limit import BodyLimit, BodyMemory
from steering_server.api.settings import ApiSettings
from steering_server.cli.listening import allow_connections
from steering_server.limits import ConnectionLimits, EngineLimits, RequestLimits
from tests.api.keyed import keyed
from tests.builders import build_model
from tests.serving import living, serving, slow_steps

IMPATIENT = ConnectionLimits(header_timeout=0.5, client_timeout=0.5, max_headers=20, max_header_size=4096)
PLENTY = b"x" * 65536


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    """A server whose model is loading for ever, and that waits for nobody."""
    with living(Future(), settings=ApiSettings(connections=IMPATIENT)) as (url, _):
        yield url


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """Everything that is sent until the connection is closed."""
    received = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def refusal(received: bytes) -> tuple[int, str]:
    head, _, body = received.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def seconds_since(began: float) -> float:
    return time.monotonic() - began


def test_a_silent_connection_is_closed(impatient: str):
    began = time.monotonic()
    with connected(impatient) as connection:
        assert answer(connection) == b""
    assert 0.4 < seconds_since(began) < 5


@pytest.mark.parametrize("request_before", [b"", b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["first", "second"])
def test_headers_that_come_slowly_are_answered_408(impatient: str, request_before: bytes):
    with connected(impatient) as connection:
        if request_before:
            connection.sendall(request_before)
            assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        began = time.monotonic()
        for letter in b"x-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
            try:
                connection.sendall(bytes([letter]))
            except OSError:
                break
            time.sleep(0.05)
        assert refusal(answer(connection)) == (408, "headers_too_slow")
    assert seconds_since(began) < 5


def test_a_body_that_comes_slowly_is_answered_408(impatient: str):
    with connected(impatient) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        began = time.monotonic()
        head = connection.recv(65536)
        assert (b" 408 " in head.split(b"\r\n")[0]) is True
        assert b"connection: close" in head
    assert 0.4 < seconds_since(began) < 5


def part_of_a_body(url: str, size: int) -> socket.socket:
    """A connection that has sent ``size`` bytes of a body, and not its last one."""
    address = httpx.URL(url)
    connection = socket.create_connection((address.host, address.port or 0), timeout=10)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {size + 1}\r\n\r\n"
    connection.sendall(head.encode() + b"[" * size)
    return connection


def test_the_bodies_of_all_requests_have_a_limit_together(tmp_path: Path):
    """Some clients send most of the largest body and wait; the memory that others find is what is left."""
    limits = RequestLimits(max_body_size=2**21, max_body_memory=2**23)
    small = {"prompt": "x", "max_tokens": 1}
    model = build_model("llama", dtype=torch.float32)
    with serving(model, tmp_path, settings=ApiSettings(limits=limits)) as url, ExitStack() as stack:
        before = psutil.Process().memory_info().rss
        clients = [stack.enter_context(part_of_a_body(url, 2**21 - 1)) for _ in range(60)]
        refused = 0
        for client in clients:
            client.settimeout(0.3)
            with suppress(TimeoutError):
                head = client.recv(65536)
                assert head.startswith(b"HTTP/1.1 429 ")
                assert b"retry-after: 1\r\n" in head.lower()
                refused += 1
        assert refused >= 56
        assert psutil.Process().memory_info().rss - before < 80 * 2**20
        assert httpx.get(f"{url}/health").status_code == 200
        stack.close()
        until = time.monotonic() + 30
        while (answered := httpx.post(f"{url}/v1/completions", json=small)).status_code != 200:
            assert answered.json()["error"]["code"] == "body_memory_full"
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_body_in_many_small_pieces_is_kept_as_one():
    """A message for every byte would take some hundred times the memory of the body."""
    parts = [{"type": "http.request", "body": b"x", "more_body": True}] * 1000 + [{"type": "http.request", "body": b""}]
    received = []

    async def receive() -> Message:
        return parts.pop(0)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())

    limit = BodyLimit(route, max_size=2000, memory=BodyMemory(2000), seconds=10)
    anyio.run(limit, {"type": "http", "headers": []}, receive, None)
    assert received == [{"type": "http.request", "body": b"x" * 1000}]


HEADS = {
    "many headers": (b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 21 + b"\r\n", 431, "headers_too_large"),
    "a large header": (b"GET /health HTTP/1.1\r\nhost: x\r\na: " + b"x" * 5000 + b"\r\n\r\n", 431, "headers_too_large"),
    "a large path": (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431, "headers_too_large"),
    "an endless header": (b"GET /health HTTP/1.1\r\na: " + PLENTY * 20, 431, "headers_too_large"),
    "no HTTP": (b"hello\r\n\r\n", 400, "invalid_http"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400, "invalid_http"),
    "a header in two lines": (b"GET / HTTP/1.1\r\nhost: x\r\n a: b\r\nb\x00: c\r\n\r\n", 400, "invalid_http"),
    "a bare line feed in a value": (b"GET / HTTP/1.1\r\nhost: x\r\na: b\rc: d\r\n\r\n", 400, "invalid_http"),
    "two lengths": (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        400,
        "invalid_http",
    ),
    "a length and chunks": (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        400,
        "invalid_http",
    ),
}


@pytest.mark.parametrize(("head", "status", "code"), HEADS.values(), ids=HEADS)
def test_what_is_no_proper_request_is_refused_in_the_same_format(impatient: str, head: bytes, status: int, code: str):
    with connected(impatient) as connection:
        with suppress(OSError):  # refused before the end
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
        assert refusal(answer(connection)) == (status, code)


def test_an_endless_body_is_refused_and_not_kept(impatient: str):
    with connected(impatient) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        sent = 0
        connection.settimeout(5)
        with suppress(OSError):
            while sent < 2**30:
                connection.sendall(b"10000\r\n" + PLENTY + b"\r\n")
                sent += len(PLENTY)
        assert sent < 200 * 2**20


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(impatient: str):
    with connected(impatient) as connection:
        length = 17 * 2**20
        head = ["POST /v1/completions HTTP/1.1", "host: x", "expect: 100-continue", f"content-length: {length}"]
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_request_without_a_key_is_refused_before_its_body_is_sent(tmp_path: Path):
    with keyed(tmp_path) as server, connected(server.url) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        began = time.monotonic()
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        assert seconds_since(began) < 5


def test_a_thousand_idle_connections_hold_up_nobody():
    allow_connections(2500)
    limits = ConnectionLimits(max_connections=200, header_timeout=60)
    with living(Future(), settings=ApiSettings(connections=limits)) as (url, _), ExitStack() as opened:
        idle = [opened.enter_context(connected(url)) for _ in range(1000)]
        for connection in idle[::2]:
            with suppress(OSError):  # it has been closed already
                connection.sendall(b"GET /health HTTP/1.1\r\n")
        began = time.monotonic()
        for _ in range(10):
            assert httpx.get(f"{url}/health", timeout=10).status_code == 200
        assert seconds_since(began) < 5
        assert sum(is_closed(connection) for connection in idle) >= 800


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_when_all_connections_work_a_new_one_is_told_so(tmp_path: Path):
    limits = ConnectionLimits(max_connections=2)
    model = build_model("llama", dtype=torch.float32, layers=24)
    with serving(model, tmp_path, settings=ApiSettings(connections=limits)) as url, ExitStack() as opened:
        body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": True, "n": 16}
        streams = [
            opened.enter_context(httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60)).iter_lines()
            for _ in range(2)
        ]
        assert all(next(stream) for stream in streams)
        with connected(url) as connection:
            received = answer(connection)
        assert refusal(received) == (503, "too_many_connections")
        assert b"retry-after: 1" in received


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_nobody_reads_is_cut_off(tmp_path: Path, stream: bool):
    content = {"prompt": ["x" * 500] * 128, "max_tokens": 1, "echo": True, "logprobs": 5, "stream": stream}
    body, kind = json.dumps(content).encode(), "application/json"
    settings = ApiSettings(connections=ConnectionLimits(client_timeout=1))
    with (
        serving(build_model("llama", dtype=torch.float32), tmp_path, settings=settings) as url,
        socket.socket() as connection,
    ):
        whole = httpx.post(f"{url}/v1/completions", content=body, headers={"content-type": kind}, timeout=120)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        address = httpx.URL(url)
        connection.connect((address.host, address.port or 0))
        head = ["POST /v1/completions HTTP/1.1", "host: x", f"content-type: {kind}", f"content-length: {len(body)}"]
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        time.sleep(4)
        assert len(answer(connection)) < len(whole.content) * 0.8


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long_is_ended_with_an_error(
    tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
):
    slow_steps(monkeypatch)
    model = build_model("llama", dtype=torch.float32)
    settings = ApiSettings(limits=RequestLimits(request_timeout=0.5))
    body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": stream}
    with serving(model, tmp_path, settings=settings, limits=EngineLimits(max_num_seqs=1)) as url:
        began = time.monotonic()
        response = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        assert seconds_since(began) < 5
        if stream:
            assert response.status_code == 200
            events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
            assert "[DONE]" not in events
            error = json.loads(events[-1])["error"]
        else:
            assert response.status_code == 408
            assert response.headers["x-should-retry"] == "false"
            error = response.json()["error"]
        assert error["code"] == "deadline_exceeded"
        assert "within the 0.5 s" in error["message"]
        quick = httpx.post(f"{url}/v1/completions", json=body | {"max_tokens": 1, "stream": False})
        assert quick.status_code == 200, "its place is free again"
