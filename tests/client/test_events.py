"""Server-sent events are read whole, however the network cuts their bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_client.events import EventDecoder

texts = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"]), max_size=15)
messages = st.lists(st.lists(texts, min_size=1, max_size=3), max_size=5)


def decode(stream: bytes, cuts: list[int]) -> list[str]:
    decoder, events, start = EventDecoder(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        events += decoder.feed(stream[start:cut])
        start = cut
    return events


@given(messages, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 10**6), max_size=8))
def test_every_event_comes_out_wherever_the_bytes_are_cut(events: list[list[str]], end: str, cuts: list[int]):
    stream = "".join("".join(f"data: {line}{end}" for line in lines) + end for lines in events)
    assert decode(stream.encode(), cuts) == ["\n".join(lines) for lines in events]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b": a comment\n\ndata: x\n\n", ["x"]),
        (b"event: message\nid: 4\ndata: x\n\n", ["x"]),
        (b"data:x\n\n", ["x"]),
        (b"data:  x\n\n", [" x"]),
        (b"data\n\n", [""]),
        (b"data: cut off", []),
        (b"data: never ended\n", []),
        (b"\n\n\ndata: x\n\n", ["x"]),
    ],
)
def test_the_stream_is_read_as_the_standard_says(stream: bytes, events: list[str]):
    assert EventDecoder().feed(stream) == events
