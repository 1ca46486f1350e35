"""Bytes and text of single tokens, for each kind of tokenizer."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from steering_profiles.models import LoadedModel
from steering_profiles.tokenization import Vocabulary, added_before, encode_prompt, encode_prompts
from tests.builders import build_sentencepiece_tokenizer, build_tokenizer

TOKENIZERS = {"byte level": build_tokenizer, "SentencePiece": build_sentencepiece_tokenizer}
TEXTS = ["the the", " a  b", "é漢🙂", "print(str(1))", "tab\tand\nline"]


@pytest.fixture(params=TOKENIZERS, ids=str)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_a_text_s_tokens_are_those_of_the_text(tokenizer, text):
    vocabulary = Vocabulary(tokenizer)
    tokens = tokenizer.encode("a" + text, add_special_tokens=False)
    assert b"".join(map(vocabulary.bytes_of, tokens)).removeprefix(b" ") == ("a" + text).encode()


def test_every_token_of_the_real_vocabulary_has_the_bytes_that_it_decodes_to(embedded: LoadedModel):
    vocabulary = Vocabulary(embedded.tokenizer)
    for token in range(len(embedded.tokenizer)):
        decoded = embedded.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        assert vocabulary.bytes_of(token).decode(errors="replace") == decoded


def test_the_token_of_a_single_byte_has_that_byte(tokenizer):
    vocabulary = Vocabulary(tokenizer)
    tokens = tokenizer.encode("a🙂", add_special_tokens=False)[-4:]
    assert [vocabulary.bytes_of(token) for token in tokens] == [bytes([code]) for code in "🙂".encode()]
    assert [vocabulary.text_of(token) for token in tokens] == [rf"bytes:\x{code:02x}" for code in "🙂".encode()]


def test_tokens_with_and_without_a_space_are_told_apart():
    tokenizer = build_sentencepiece_tokenizer()
    vocabulary = Vocabulary(tokenizer)
    spaced, bare = tokenizer.convert_tokens_to_ids(["▁the", "the"])
    assert (vocabulary.text_of(spaced), vocabulary.text_of(bare)) == (" the", "the")
    assert (vocabulary.bytes_at_start(spaced), vocabulary.bytes_at_start(bare)) == (b"the", b"the")


def test_words_that_spaces_join_have_a_space():
    words = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?"))
    assert vocabulary.text_of(1) == " two"
    assert vocabulary.bytes_at_start(1) == b"two"


def test_words_that_a_mark_continues_have_no_space():
    pieces = Tokenizer(models.WordPiece({"run": 0, "##ning": 1, "[UNK]": 2}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="[UNK]"))
    assert vocabulary.text_of(1) == "ning"
    assert vocabulary.bytes_at_start(1) == b"##ning"


def bpe(letters: str, **kwargs: str) -> Tokenizer:
    return Tokenizer(models.BPE({piece: index for index, piece in enumerate(["<bos>", *letters])}, [], **kwargs))


def test_tokens_have_texts_in_a_vocabulary_without_words():
    numbers = bpe("0123456789+= ")
    numbers.decoder = decoders.Fuse()
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=numbers))
    assert [vocabulary.text_of(token) for token in (1, 11, 13)] == ["0", "+", " "]


@pytest.mark.parametrize("unknown", [{}, {"unk_token": "<bos>"}], ids=["none unknown", "the first unknown"])
def test_the_tokens_before_a_text_are_found_for_any_alphabet(unknown: dict[str, str]):
    capitals = bpe("ABC", **unknown)
    capitals.add_special_tokens([AddedToken("<bos>", special=True)])
    capitals.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=capitals, bos_token="<bos>")
    assert added_before(tokenizer) == (0,)
    assert encode_prompt(tokenizer, "AB") == (0, 1, 2)


def test_a_special_token_is_shown_as_it_is_spelled(tokenizer):
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.is_special(tokenizer.eos_token_id)
    assert vocabulary.text_of(tokenizer.eos_token_id) == tokenizer.eos_token


def test_an_id_without_a_token_is_shown_as_its_number(tokenizer):
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.bytes_of(100_000) == b""
    assert vocabulary.text_of(100_000) == "token_id:100000"


@pytest.mark.parametrize("appends_end", [False, True])
def test_a_prompt_has_the_token_before_a_text_and_not_the_one_after_it(appends_end):
    tokenizer = build_sentencepiece_tokenizer(appends_end=appends_end)
    assert added_before(tokenizer) == (tokenizer.bos_token_id,)
    plain = tokenizer.encode("the", add_special_tokens=False)
    assert encode_prompt(tokenizer, "the") == (tokenizer.bos_token_id, *plain)
    assert encode_prompt(tokenizer, "") == (tokenizer.bos_token_id,)


def test_a_prompt_has_only_the_tokens_of_its_text_if_the_tokenizer_adds_none():
    tokenizer = build_tokenizer()
    assert added_before(tokenizer) == ()
    assert list(encode_prompt(tokenizer, "abc")) == tokenizer.encode("abc")


@pytest.mark.parametrize("tokenizer", [build_tokenizer(), build_sentencepiece_tokenizer(appends_end=True)])
def test_several_prompts_are_encoded_like_each_alone(tokenizer):
    texts = ["the", "", "abc the", "the the the"]
    assert encode_prompts(tokenizer, texts) == [encode_prompt(tokenizer, text) for text in texts]
    assert encode_prompts(tokenizer, []) == []


def test_the_tokens_before_a_text_are_found_without_decoding_the_whole_vocabulary(monkeypatch: pytest.MonkeyPatch):
    """Every prompt asks for it."""
    tokenizer = build_sentencepiece_tokenizer()
    monkeypatch.setattr(type(tokenizer), "convert_tokens_to_string", lambda *_: pytest.fail("a token was looked at"))
    assert added_before(tokenizer) == (tokenizer.bos_token_id,)
