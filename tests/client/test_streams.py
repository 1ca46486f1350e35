"""A stream is an iterator of chunks, and gives the whole answer at its end."""

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_client import AsyncSteeringClient, SteeringClient, Stream, StreamInterrupted, joining
from steering_client.types import ChatChunk

PROMPT = "print(str(1"
GREEDY: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0}
MESSAGES: Any = [{"role": "user", "content": "hello"}]
NEW_EACH_TIME = {"id", "created"}
APPLIED = {"arm": "baseline", "profile": None, "content_hash": None, "strength": 1.0, "profiles": []}


def without_id(answer: Any) -> dict[str, Any]:
    content: dict[str, Any] = answer.model_dump(exclude=NEW_EACH_TIME)
    return content


@pytest.mark.parametrize(
    "options",
    [{}, {"logprobs": 2}, {"logprobs": 0, "echo": True}, {"n": 2, "temperature": 1.0, "seed": 3}, {"profile": "heads"}],
    ids=str,
)
def test_the_final_completion_is_that_of_the_request_without_streaming(url: str, options: dict[str, Any]):
    with SteeringClient(url) as client:
        whole = client.complete(PROMPT, **GREEDY | options)
        with client.stream(PROMPT, **GREEDY | options) as stream:
            assert without_id(stream.final()) == without_id(whole)


@pytest.mark.parametrize("options", [{}, {"logprobs": True, "top_logprobs": 2}, {"n": 2, "seed": 3}], ids=str)
def test_the_final_chat_answer_is_that_of_the_request_without_streaming(url: str, options: dict[str, Any]):
    with SteeringClient(url) as client:
        whole = client.chat(MESSAGES, **GREEDY | options)
        assert without_id(client.stream_chat(MESSAGES, **GREEDY | options).final()) == without_id(whole)


def test_the_final_answer_after_some_chunks_holds_those_too(url: str):
    async def run() -> tuple[str, str]:
        async with AsyncSteeringClient(url) as client, client.stream(PROMPT, **GREEDY) as stream:
            await anext(stream)
            return (await stream.final()).text, (await client.complete(PROMPT, **GREEDY)).text

    streamed, whole = anyio.run(run)
    assert streamed == whole


def test_the_final_answer_can_be_asked_for_twice_and_after_the_last_chunk(url: str):
    with SteeringClient(url) as client:
        stream = client.stream(PROMPT, **GREEDY)
        chunks = list(stream)
        assert stream.final() == stream.final()
        assert stream.final().text == "".join(chunk.text for chunk in chunks)


def test_a_stream_that_was_closed_has_no_final_answer(url: str):
    with SteeringClient(url) as client:
        with client.stream(PROMPT, max_tokens=400, temperature=1.0) as stream:
            next(stream)
        with pytest.raises(StreamInterrupted, match="closed before it was complete"):
            stream.final()


def test_a_stream_that_failed_has_no_final_answer():
    def failing() -> Any:
        raise StreamInterrupted("the server failed")
        yield

    stream: Stream[Any, Any] = Stream(failing(), joining.completion)
    with pytest.raises(StreamInterrupted, match="the server failed"):
        next(stream)
    with pytest.raises(StreamInterrupted, match="closed before it was complete"):
        stream.final()


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=4)), max_size=12))
def test_parts_of_tool_calls_are_joined_by_their_index(parts: list[tuple[int, str]]):
    """A server streams the calls of an answer in parts; the first of each names it."""
    seen: set[int] = set()
    chunks = []
    for index, arguments in parts:
        first = {} if index in seen else {"id": f"call-{index}", "type": "function"}
        name = {} if index in seen else {"name": f"f{index}"}
        seen.add(index)
        call = {"index": index, "function": name | {"arguments": arguments}} | first
        chunks.append({"index": 0, "delta": {"tool_calls": [call]}})
    chunks.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    envelope = {"id": "c", "created": 1, "model": "m", "steering": APPLIED}
    joined = joining.chat_completion([ChatChunk.model_validate(envelope | {"choices": [one]}) for one in chunks])
    calls = {call.id: call for call in joined.choices[0].message.tool_calls or ()}
    assert set(calls) == {f"call-{index}" for index in seen}
    for index in seen:
        function = calls[f"call-{index}"].function
        assert function.name == f"f{index}"
        assert function.arguments == "".join(arguments for at, arguments in parts if at == index)
