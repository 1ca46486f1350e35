"""The sync and the async client against a real server."""

import inspect
import socket
import threading

import httpx
import pytest

from steering_client import (
    AsyncSteeringClient,
    BadRequest,
    ConnectionFailed,
    NotFound,
    RateLimited,
    ServerFailure,
    SteeringClient,
    StreamInterrupted,
    Timeout,
    UnexpectedResponse,
)

PROMPT = "print(str(1"
GREEDY = {"max_tokens": 8, "temperature": 0.0}
MESSAGES = [{"role": "user", "content": "hello"}]


def test_a_completion_is_steered_by_profile_and_strength(call):
    plain = call("complete", PROMPT, **GREEDY)
    steered = call("complete", PROMPT, profile="heads", **GREEDY)
    assert steered.text == call("complete", PROMPT, model="tiny-llama+heads", **GREEDY).text != plain.text
    assert call("complete", PROMPT, profile="heads", strength=0.0, **GREEDY).text == plain.text
    assert (steered.steering.profile, steered.steering.strength) == ("heads", 1.0)
    assert steered.usage.completion_tokens == 8


def test_a_streamed_completion_is_the_unstreamed_one(call):
    chunks = call("stream", PROMPT, profile=["heads", "final"], **GREEDY)
    assert "".join(chunk.text for chunk in chunks) == call("complete", PROMPT, profile="heads+final", **GREEDY).text


def test_a_streamed_chat_is_the_unstreamed_one(call):
    chunks = call("stream_chat", MESSAGES, profile="heads", **GREEDY)
    streamed = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert streamed == call("chat", MESSAGES, profile="heads", **GREEDY).text


def test_a_comparison_has_the_texts_of_two_requests(call):
    comparison = call("compare", PROMPT, ["baseline", "heads"], **GREEDY)
    assert comparison.texts == {
        "baseline": call("complete", PROMPT, **GREEDY).text,
        "heads": call("complete", PROMPT, profile="heads", **GREEDY).text,
    }
    assert comparison.pair("heads", "baseline").first_difference is not None
    assert all(text.startswith(comparison.common_prefix) for text in comparison.texts.values())
    with pytest.raises(KeyError, match="final"):
        comparison.pair("heads", "final")


def test_a_comparison_is_printed_as_one_line_per_arm_with_the_first_difference(call):
    lines = str(call("compare", PROMPT, ["baseline", "heads"], **GREEDY)).splitlines()
    assert [line.split()[0] for line in lines] == ["baseline", "heads"]
    assert all(" | " in line for line in lines)


def test_a_comparison_scores_each_arms_tokens_under_the_other(call):
    pair = call("compare", PROMPT, ["baseline", "heads"], logprobs=0, **GREEDY).pair("baseline", "heads")
    assert set(pair.logprobs) == {"baseline", "heads"}
    assert {len(values) for under in pair.logprobs.values() for values in under.values()} == {8}


def test_models_profiles_and_health_are_listed(call):
    assert [model.id for model in call("models")] == ["tiny-llama", "tiny-llama+final", "tiny-llama+heads"]
    assert {profile.name for profile in call("profiles")} == {"heads", "final"}
    assert call("profile", "heads").profile["name"] == "heads"
    assert call("health").status == "ok"
    assert call("ready").model == "tiny-llama"


def test_an_unknown_profile_is_named(call):
    with pytest.raises(NotFound, match="nope") as caught:
        call("complete", PROMPT, profile="nope")
    assert (caught.value.status, caught.value.param) == (404, "steering.profile")


@pytest.mark.parametrize("method", ["complete", "stream"])
def test_an_invalid_value_names_its_field(call, method):
    with pytest.raises(BadRequest, match="max_tokens") as caught:
        call(method, PROMPT, max_tokens=-1)
    assert caught.value.param == "max_tokens"


def test_both_clients_have_the_same_methods_with_the_same_parameters():
    def public(client: type) -> dict[str, list[inspect.Parameter]]:
        return {
            name: list(inspect.signature(method).parameters.values())
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(SteeringClient) == public(AsyncSteeringClient)


def test_closing_a_stream_closes_its_connection(url):
    with SteeringClient(url) as client:
        stream = client.stream(PROMPT, max_tokens=400, temperature=1.0)
        next(stream)
        stream.close()
        assert client.complete(PROMPT, **GREEDY).text


def test_an_unreachable_server_is_named_at_once():
    with SteeringClient("http://127.0.0.1:1") as client, pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
        client.health()


def test_a_server_that_does_not_answer_is_a_timeout():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        SteeringClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2) as client,
        pytest.raises(Timeout),
    ):
        client.health()


ERROR = {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(400, json=ERROR), BadRequest),
        (httpx.Response(404, json=ERROR), NotFound),
        (httpx.Response(413, json=ERROR), BadRequest),
        (httpx.Response(429, json=ERROR, headers={"retry-after": "2"}), RateLimited),
        (httpx.Response(500, json=ERROR), ServerFailure),
        (httpx.Response(502, text="<html>bad gateway</html>"), UnexpectedResponse),
        (httpx.Response(200, text="hello"), UnexpectedResponse),
        (httpx.Response(200, json={"status": 5}), UnexpectedResponse),
    ],
)
def test_every_unexpected_answer_has_its_error(answer: httpx.Response, error: type[Exception]):
    transport = httpx.MockTransport(lambda request: answer)  # a steering server never sends some of these
    with SteeringClient(transport=transport) as client, pytest.raises(error) as caught:
        client.health()
    if error is RateLimited:
        assert caught.value.retry_after == 2.0


@pytest.mark.parametrize(
    ("events", "says"),
    [("", "before the server sent"), ('data: {"error": {"message": "out of memory"}}\n\n', "out of memory")],
    ids=["cut off", "error event"],
)
def test_a_stream_that_ends_early_is_an_error(events: str, says: str):
    """A socket plays a server that ends during a stream."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_once() -> None:
        connection, _ = listener.accept()
        with connection:
            head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            connection.sendall((head + events).encode())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass  # closing with unread bytes would reset the connection

    thread = threading.Thread(target=answer_once)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with SteeringClient(url) as client, pytest.raises(StreamInterrupted, match=says):
        list(client.stream("x"))
    thread.join()
    listener.close()
