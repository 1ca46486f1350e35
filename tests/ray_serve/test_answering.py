"""How an answer is passed on, and how it ends when its replica is lost."""

import asyncio
import json
from typing import Any

import pytest

from steering_server.errors import Unavailable
from steering_server.ray_serve.answering import Answer
from steering_server.ray_serve.forwarding import Forwarded

LOST = Unavailable("the replica was lost; send the request again", code="replica_lost")


class Client:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def start(kind: str) -> dict[str, Any]:
    headers = [(b"content-type", kind.encode()), (b"x-request-id", b"1"), (b"x-steering", b"a")]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def passed(path: str, *messages: dict[str, Any], fails: bool = False) -> tuple[Client, Answer]:
    client = Client()
    answer = Answer(client.send, path)

    async def pass_on() -> None:
        for message in messages:
            await answer.send(message)
        if fails:
            await answer.fail(LOST)

    asyncio.run(pass_on())
    return client, answer


def test_an_answer_begins_with_its_first_body():
    client, answer = passed("/v1/completions", start("application/json"))
    assert (client.messages, answer.has_begun) == ([], False)
    client, answer = passed("/v1/completions", start("application/json"), part(b"{}", more=False))
    assert [message["type"] for message in client.messages] == ["http.response.start", "http.response.body"]
    assert (answer.has_begun, answer.has_ended) == (True, True)


def test_an_answer_has_its_headers_but_for_the_id_that_the_proxy_adds():
    client, _ = passed("/v1/completions", start("application/json"), part(b"{}", more=False))
    assert client.messages[0]["headers"] == [(b"content-type", b"application/json"), (b"x-steering", b"a")]


def test_what_is_kept_of_a_lost_replica_is_not_part_of_the_next_answer():
    client = Client()
    answer = Answer(client.send, "/v1/completions")

    async def pass_on() -> None:
        await answer.send(start("text/event-stream"))
        answer.forget()
        await answer.send(start("application/json"))
        await answer.send(part(b"{}", more=False))

    asyncio.run(pass_on())
    assert [message.get("body") for message in client.messages] == [None, b"{}"]


def test_a_stream_of_a_lost_replica_ends_with_an_error():
    first = part(b'data: {"choices": []}\n\n')
    client, answer = passed("/v1/completions", start("text/event-stream"), first, fails=True)
    *_, last = client.body.decode().strip().split("\n\n")
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("replica_lost", "service_unavailable_error")
    assert answer.has_ended
    assert client.messages[-1]["more_body"] is False


def test_a_stream_of_responses_ends_with_an_event_of_that_route():
    events = part(b"event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {}\n\n")
    client, _ = passed("/v1/responses", start("text/event-stream"), events, fails=True)
    *_, last = client.body.decode().strip().split("\n\n")
    name, data = last.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error", "code": "replica_lost", "message": str(LOST), "param": None, "sequence_number": 2,
    }  # fmt: skip


def test_another_answer_that_was_cut_is_not_made_to_look_whole():
    with pytest.raises(Unavailable):
        passed("/v1/profiles", start("application/json"), part(b"{"), fails=True)


@pytest.mark.parametrize(
    ("method", "path", "may_repeat"),
    [
        ("POST", "/v1/chat/completions", True),
        ("GET", "/v1/models", True),
        ("PUT", "/v1/profiles/a", False),
        ("POST", "/v1/experiments/e/outcomes", False),
    ],
)
def test_only_what_changes_nothing_is_asked_of_another_replica(method: str, path: str, may_repeat: bool):
    scope = {"method": method, "path": path, "headers": [(b"Authorization", b"Bearer x")], "query_string": b"a=1"}
    request = Forwarded.of(scope, b"")
    assert request.may_repeat is may_repeat
    assert request.scope()["headers"] == [(b"authorization", b"Bearer x")]
    assert (request.scope()["query_string"], request.scope()["raw_path"]) == (b"a=1", path.encode())
