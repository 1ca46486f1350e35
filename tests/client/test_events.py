"""Streams of events are parsed as the HTML standard says, however the network splits the bytes."""

import json
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_client import AsyncSteeringClient, SteeringClient, StreamInterrupted, UnexpectedResponse

CLIENTS = [SteeringClient, AsyncSteeringClient]
DONE = "data: [DONE]\n\n"

# With line separators of Unicode, which do not end a line of an event stream.
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2028\u0085\x0c"), max_size=15)


def chunk(text: str) -> str:
    """A chunk of a stream of completions, as JSON."""
    applied = {"arm": "baseline", "profile": None, "content_hash": None, "strength": 1.0, "profiles": []}
    choice = {"index": 0, "text": text}
    body = {"id": "cmpl-1", "created": 1, "model": "m", "steering": applied, "choices": [choice]}
    return json.dumps(body, ensure_ascii=False)


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Bytes that arrive in parts."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


def stream(client_type: type, *parts: bytes, content_type: str = "text/event-stream; charset=utf-8") -> list[str]:
    """Return the texts that a client of this type streams if a server answers ``parts``."""
    answer = httpx.Response(200, headers={"content-type": content_type}, stream=Body(list(parts)))
    transport = httpx.MockTransport(lambda request: answer)
    if client_type is SteeringClient:
        with SteeringClient(transport=transport) as client:
            return [chunk.text for chunk in client.stream("x")]

    async def run() -> list[str]:
        async with AsyncSteeringClient(transport=transport) as client:
            return [chunk.text async for chunk in client.stream("x")]

    return anyio.run(run)


def split(content: bytes, cuts: list[int]) -> list[bytes]:
    ends = [*sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(texts, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 10**6), max_size=8))
def test_every_event_is_parsed_wherever_the_bytes_are_split(sent: list[str], end: str, cuts: list[int]):
    content = "".join(f"data: {data}{end}{end}" for data in [*map(chunk, sent), "[DONE]"])
    assert stream(SteeringClient, *split(content.encode(), cuts)) == sent


@pytest.mark.parametrize("client", CLIENTS)
def test_every_event_is_parsed_if_bytes_arrive_one_by_one(client: type):
    text = "1 €\u2028😀"
    content = f"data: {chunk(text)}\r\n\r\n{DONE}".encode()
    assert stream(client, *split(content, list(range(len(content))))) == [text]


@pytest.mark.parametrize(
    ("before", "data"),
    [
        (": a comment\n\n", f"data: {chunk('x')}\n\n"),
        ("", f"event: message\nid: 4\ndata: {chunk('x')}\n\n"),
        ("id: 4\n\n", f"data: {chunk('x')}\n\n\n\n"),
        ("retry: 5\n\nevent: ping\n\n", f"data: {chunk('x')}\n\n"),
        ("", f"data:{chunk('x')}\n\n"),
        ("", f"data:  {chunk('x')}\n\n"),
        ("", "".join(f"data: {line}\n" for line in chunk("x").replace(", ", ",\n").splitlines()) + "\n"),
        ("data\n\n", f"data: {chunk('x')}\n\n"),
        ("\n\n\n", f"data: {chunk('x')}\n\n"),
    ],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_fields_are_parsed_as_the_standard_says(client: type, before: str, data: str):
    assert stream(client, (before + data + DONE).encode()) == ["x"]


@pytest.mark.parametrize("rest", ["data: [DONE]", "data: [DONE]\n", "data: cut off", ""])
@pytest.mark.parametrize("client", CLIENTS)
def test_an_event_without_its_end_is_no_event(client: type, rest: str):
    with pytest.raises(StreamInterrupted, match=r"the stream ended before the server sent \[DONE\]"):
        stream(client, f"data: {chunk('x')}\n\n{rest}".encode())


@pytest.mark.parametrize("client", CLIENTS)
def test_an_answer_that_is_not_an_event_stream_is_unexpected(client: type):
    with pytest.raises(UnexpectedResponse, match="did not answer with an event stream"):
        stream(client, b"<html>hello</html>", content_type="text/html")
