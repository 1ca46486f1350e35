"""Tokens become text as they come: whole characters, up to the first stop string, the same however they are chunked."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_server.engine.requests import Chunk
from steering_server.engine.text import TextStream


def decode_bytes(tokens: Sequence[int]) -> str:
    """A tokenizer with one token per byte, the hardest case for whole characters."""
    return bytes(tokens).decode("utf-8", errors="replace")


def run(text: str, stop: Sequence[str] = (), prompt: bytes = b"") -> list[Chunk]:
    stream = TextStream(decode_bytes, list(prompt), stop)
    chunks = []
    for token in text.encode():
        chunks.append(stream.push(token, None))
        if chunks[-1].finish_reason:
            return chunks
    chunks.append(stream.finish("length"))
    return chunks


def joined(chunks: Sequence[Chunk]) -> Chunk:
    return sum(chunks, Chunk())


@given(st.text(max_size=40))
def test_chunks_joined_are_the_decoded_text(text: str):
    assert joined(run(text)).text == text


@given(st.text(alphabet="aé漢🙂", max_size=20))
def test_no_chunk_ends_inside_a_character(text: str):
    assert all("\ufffd" not in chunk.text for chunk in run(text))


def test_bytes_that_never_become_a_character_are_given_out_in_the_end():
    stream = TextStream(decode_bytes, [], ())
    chunks = [stream.push(0x80, None) for _ in range(30)]
    assert any(chunk.text for chunk in chunks)


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_stop_string_that_is_complete_first(text: str, stops: list[str]):
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    result = joined(run(text, stops))
    if ends:
        earliest = min(text[: ends[0]].find(stop) for stop in stops if stop in text[: ends[0]])
        assert (result.text, result.finish_reason) == (text[:earliest], "stop")
    else:
        assert (result.text, result.finish_reason) == (text, "length")


def test_text_that_may_become_a_stop_string_is_held_back_until_it_cannot():
    stream = TextStream(decode_bytes, [], ["END"])
    assert [stream.push(byte, None).text for byte in b"xENx"] == ["x", "", "", "ENx"]


def test_a_stop_string_that_was_held_back_and_never_came_is_given_out_at_the_end():
    assert joined(run("xEN", ["END"])).text == "xEN"


@given(st.text(alphabet="abé", max_size=20), st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=2))
def test_every_token_comes_once_in_order_with_the_place_where_its_text_begins(text: str, stops: list[str]):
    result = joined(run(text, stops))
    assert list(result.tokens) == list(text.encode())[: len(result.tokens)]
    assert list(result.offsets) == sorted(result.offsets)
    kept = text[: len(result.text)].encode()
    assert bytes(result.tokens)[: len(kept)] == kept


def test_the_first_token_is_read_in_the_context_of_the_prompt():
    def decode_words(tokens: Sequence[int]) -> str:  # as sentence-piece tokenizers do: no space before the first word
        return " ".join("abc"[token] for token in tokens)

    stream = TextStream(decode_words, [0], ())
    assert stream.push(1, None).text == " b"


@pytest.mark.parametrize("length", [1, 7, 50])
def test_a_long_text_is_decoded_in_a_window_of_constant_size(length: int):
    longest = 0

    def decode(tokens: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return decode_bytes(tokens)

    stream = TextStream(decode, list(b"p" * 1000), ())
    for byte in b"x" * length:
        stream.push(byte, None)
    assert longest <= 16
