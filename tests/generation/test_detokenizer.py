"""Incremental detokenization: whole characters, up to the first stop string, independent of the chunks."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from steering_profiles.tokenization import Vocabulary
from steering_server.generation.detokenizer import TextStream, echo
from steering_server.generation.requests import Chunk, TextDelta
from tests.builders import build_sentencepiece_tokenizer, build_tokenizer

TOKENIZER = build_tokenizer()  # one token per byte, the hardest case for whole characters
BYTES = Vocabulary(TOKENIZER)
SENTENCEPIECE = build_sentencepiece_tokenizer()
WORDS = Vocabulary(SENTENCEPIECE)


def byte_tokens(raw: bytes) -> list[int]:
    of = {BYTES.bytes_of(token): token for token in range(len(TOKENIZER)) if not BYTES.is_special(token)}
    return [of[bytes([code])] for code in raw]


def run(
    text: str, stop: Sequence[str] = (), prompt: bytes = b"", *, min_tokens: int = 0, ends: bool = False
) -> list[Chunk]:
    stream = TextStream(BYTES, byte_tokens(prompt), stop, min_tokens=min_tokens)
    chunks = []
    for token in byte_tokens(text.encode()):
        chunks.append(stream.push(token, None))
        if chunks[-1].finish_reason:
            return chunks
    chunks.append(stream.end(TOKENIZER.eos_token_id, None) if ends else stream.finish("length"))
    return chunks


def joined(chunks: Sequence[Chunk]) -> Chunk:
    return sum(chunks, Chunk())


def text_of(deltas: Sequence[TextDelta]) -> str:
    return "".join(delta.text for delta in deltas)


@given(st.text(max_size=40))
def test_concatenated_chunks_are_the_decoded_text(text: str):
    assert joined(run(text)).text == text


@given(st.text(alphabet="aé漢🙂", max_size=20))
def test_no_chunk_ends_inside_a_character(text: str):
    assert all("\ufffd" not in chunk.text for chunk in run(text))


def test_bytes_that_never_become_a_character_are_returned():
    stream = TextStream(BYTES, [])
    chunks = [stream.push(token, None) for token in byte_tokens(b"\x80\xe6\xbca")]
    assert [chunk.text for chunk in chunks] == ["\ufffd", "", "", "\ufffda"]


def test_an_incomplete_character_at_the_end_is_returned():
    stream = TextStream(BYTES, [])
    chunks = [stream.push(token, None) for token in byte_tokens(b"a\xe6\xbc")] + [stream.finish("length")]
    assert joined(chunks).text == text_of(joined(chunks).deltas) == "a\ufffd"
    assert len(joined(chunks).tokens) == 3


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_stop_string_that_is_completed_first(text: str, stops: list[str]):
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    result = joined(run(text, stops))
    if ends:
        earliest = min(text[: ends[0]].find(stop) for stop in stops if stop in text[: ends[0]])
        assert (result.text, result.finish_reason) == (text[:earliest], "stop")
    else:
        assert (result.text, result.finish_reason) == (text, "length")


@given(st.text(alphabet="ab", max_size=20), st.integers(0, 8))
def test_a_stop_string_that_begins_before_min_tokens_is_ignored(text: str, least: int):
    result = joined(run(text, ["ab"], min_tokens=least))
    at = text.find("ab", least)
    assert (result.text, result.finish_reason) == ((text, "length") if at < 0 else (text[:at], "stop"))


def test_text_that_may_become_a_stop_string_is_held_back_until_it_cannot():
    stream = TextStream(BYTES, [], ["END"])
    assert [stream.push(token, None).text for token in byte_tokens(b"xENx")] == ["x", "", "", "ENx"]


def test_text_held_back_for_a_stop_string_is_returned_at_the_end():
    assert joined(run("xEN", ["END"])).text == "xEN"


@given(
    st.text(alphabet="abé🙂", max_size=20),
    st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=3), max_size=2),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_token_is_returned_once_in_order_and_their_deltas_are_the_text(text, stops, least, ends):
    result = joined(run(text, stops, min_tokens=least, ends=ends))
    assert list(result.tokens[: len(text.encode())]) == byte_tokens(text.encode())[: len(result.tokens)]
    assert text_of(result.deltas) == result.text
    assert b"".join(delta.raw for delta in result.deltas) == result.text.encode()
    assert len(result.deltas) == len(result.tokens)


@given(st.binary(max_size=12), st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=3), max_size=2))
def test_the_deltas_of_every_chunk_are_its_text(raw: bytes, stops: list[str]):
    stream = TextStream(BYTES, [], stops)
    chunks = []
    for token in byte_tokens(raw):
        chunks.append(stream.push(token, None))
        if chunks[-1].finish_reason:
            break
    else:
        chunks.append(stream.finish("length"))
    for chunk in chunks:
        assert text_of(chunk.deltas) == chunk.text
    if not stops:
        assert joined(chunks).text == raw.decode(errors="replace")


def test_a_token_of_several_characters_keeps_the_bytes_of_those_before_the_stop_string():
    cats = build_tokenizer()
    cats.add_tokens(["cat🙂"])
    stream = TextStream(Vocabulary(cats), [], ["t"])
    chunk = stream.push(cats.convert_tokens_to_ids("cat🙂"), None)
    assert (chunk.text, chunk.deltas) == ("ca", (TextDelta("ca", b"ca"),))


def test_the_end_token_is_a_token_without_text():
    result = joined(run("ab", ends=True))
    assert result.tokens[-1] == TOKENIZER.eos_token_id
    assert (text_of(result.deltas), result.deltas[-1], result.finish_reason) == ("ab", TextDelta(), "stop")


def test_tokens_of_a_stop_string_are_returned_without_text():
    result = joined(run("xEND", ["END"]))
    assert len(result.tokens) == 4
    assert [delta.text for delta in result.deltas] == ["x", "", "", ""]


def test_a_character_begun_by_the_prompt_is_returned_with_the_token_that_completes_it():
    raw = "🙂".encode()
    stream = TextStream(BYTES, byte_tokens(b"a" + raw[:2]))
    chunks = [stream.push(token, None) for token in byte_tokens(raw[2:] + b"b")]
    assert [chunk.text for chunk in chunks] == ["", "🙂", "b"]
    assert text_of(echo(BYTES, byte_tokens(b"a" + raw[:2]), is_all=False)) == "a"
    assert text_of(echo(BYTES, byte_tokens(b"a" + raw[:2]), is_all=True)) == "a\ufffd"


@given(st.text(alphabet="the ()é🙂", max_size=16), st.integers(0, 40))
def test_an_echo_and_its_completion_are_the_decoding_of_all_tokens(text: str, given_tokens: int):
    for vocabulary, tokenizer in ((BYTES, TOKENIZER), (WORDS, SENTENCEPIECE)):
        tokens = [*vocabulary.opening, *tokenizer.encode(text, add_special_tokens=False)]
        cut = max(min(given_tokens, len(tokens)), len(vocabulary.opening))
        stream = TextStream(vocabulary, tokens[:cut])
        chunks = [stream.push(token, None) for token in tokens[cut:]] + [stream.finish("length")]
        whole = text_of(echo(vocabulary, tokens[:cut], is_all=cut == len(tokens))) + joined(chunks).text
        assert whole == tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


@given(st.lists(st.integers(0, len(SENTENCEPIECE) - 1), min_size=1, max_size=12))
def test_an_echo_of_any_tokens_is_what_the_tokenizer_decodes(tokens: list[int]):
    prompt = [*WORDS.opening, *(token for token in tokens if not WORDS.is_special(token))]
    decoded = SENTENCEPIECE.decode(prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert text_of(echo(WORDS, prompt, is_all=True)) == decoded


@given(st.binary(max_size=10))
def test_an_echo_of_any_bytes_is_what_the_tokenizer_decodes(raw: bytes):
    for vocabulary, tokenizer in ((BYTES, TOKENIZER), (WORDS, SENTENCEPIECE)):
        of = {vocabulary.bytes_of(token): token for token in reversed(range(3, 259))}
        prompt = [*vocabulary.opening, *tokenizer.encode("a", add_special_tokens=False)]
        prompt += byte_tokens(raw) if vocabulary is BYTES else [of[bytes([code])] for code in raw]
        decoded = tokenizer.decode(prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert text_of(echo(vocabulary, prompt, is_all=True)) == decoded


@pytest.mark.parametrize("following", [b"b", b"\xf0", b"\x9f\xc3", b""])
def test_incomplete_bytes_of_the_prompt_are_returned_only_with_its_echo(following: bytes):
    prompt = byte_tokens(b"a\xf0\x9f")
    texts = {}
    for echoes in (False, True):
        stream = TextStream(BYTES, prompt, echoes=echoes)
        chunks = [stream.push(token, None) for token in byte_tokens(following)]
        chunks.append(stream.end(TOKENIZER.eos_token_id, None))
        texts[echoes] = joined(chunks).text
        assert text_of(joined(chunks).deltas) == texts[echoes]
    whole = (b"a\xf0\x9f" + following).decode(errors="replace")
    assert "a" + texts[True] == whole
    assert texts[False] == whole.removeprefix("a\ufffd")


def test_tokens_that_the_tokenizer_puts_before_a_text_add_nothing_to_an_echo():
    tokens = SENTENCEPIECE.encode("the the")
    deltas = echo(WORDS, tokens, is_all=True)
    assert [delta.text for delta in deltas] == ["", "the", " the"]


def test_special_tokens_in_a_prompt_are_echoed_and_generated_ones_are_not():
    end = TOKENIZER.eos_token_id
    assert text_of(echo(BYTES, [*byte_tokens(b"a"), end], is_all=True)) == "a<end>"
    stream = TextStream(BYTES, [])
    assert joined([stream.push(token, None) for token in (end, *byte_tokens(b"a"))]).text == "a"


def test_the_first_word_of_a_text_has_no_space_and_the_first_after_a_prompt_does():
    (spaced,) = [SENTENCEPIECE.convert_tokens_to_ids("▁the")]
    assert TextStream(WORDS, WORDS.opening).push(spaced, None).text == "the"
    assert TextStream(WORDS, SENTENCEPIECE.encode("a")).push(spaced, None).text == " the"


@pytest.mark.parametrize("tokenizer", [TOKENIZER, SENTENCEPIECE], ids=["byte level", "SentencePiece"])
def test_long_runs_of_bytes_are_decoded_incrementally(tokenizer: PreTrainedTokenizerFast):
    vocabulary = Vocabulary(tokenizer)
    tokens = tokenizer.encode("🙂" * 12, add_special_tokens=False)
    stream = TextStream(vocabulary, tokenizer.encode("a"))
    assert joined([stream.push(token, None) for token in tokens]).text.strip() == "🙂" * 12
