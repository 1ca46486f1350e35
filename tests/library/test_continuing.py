"""Which tokens go on with an answer, and which let it end."""

import pytest

from steering_profiles.models import LoadedModel
from steering_profiles.tokenization import Continuations
from steering_profiles.tokenization.continuing import goes_on
from tests.builders import build_sentencepiece_tokenizer, build_tokenizer


@pytest.mark.parametrize(
    ("last", "added", "goes"),
    [
        ("2", b"5", True),
        ("2", b"th", True),
        ("2", b" 5", False),
        ("2", b"\n", False),
        ("2", b".", False),
        ("2", b"", False),
        ("t", b"el", True),
        ("t", "é".encode(), True),
        ("t", "é".encode()[:1], True),
        ("é", b"s", True),
        ("t", b")", False),
        (")", b")", True),
        (")", b"))\n", True),
        (")", b"\n", False),
        (")", b"a", False),
    ],
)
def test_a_word_or_number_goes_on_with_letters_and_digits_and_others_with_the_same_character(
    last: str, added: bytes, goes: bool
):
    assert goes_on(last, added) == goes


@pytest.mark.parametrize("build", [build_tokenizer, build_sentencepiece_tokenizer])
@pytest.mark.parametrize("last", ["7", "x", ")"])
def test_all_tokens_of_a_vocabulary_are_told_apart_as_one_at_a_time(build, last: str):
    tokenizer = build()
    continuations = Continuations(tokenizer)
    size = len(tokenizer) + 3  # as in padded vocabularies
    of_all = continuations.of_all(last, size)
    assert of_all == [continuations.goes_on(last, token) for token in range(size)]
    assert of_all[tokenizer.encode("a5", add_special_tokens=False)[-1]] == (last != ")")
    assert of_all[tokenizer.encode("a))", add_special_tokens=False)[-1]] == (last == ")")
    assert not any(of_all[token] for token in (tokenizer.eos_token_id, size - 1))


def test_words_with_their_space_end_a_word_and_words_without_it_do_not(embedded: LoadedModel):
    continuations = Continuations(embedded.tokenizer)
    for text, goes in (("ing", True), (" ing", False), ("7", True), ("\n", False), (".", False)):
        (token,) = embedded.tokenizer.encode(text, add_special_tokens=False)
        assert continuations.goes_on("k", token) == goes
