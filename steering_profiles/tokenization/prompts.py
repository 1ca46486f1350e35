"""Tokenization of prompts, shared by fitting and serving so that both see the same tokens."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "a"


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    """Return the token ids of ``text`` with the special tokens that the tokenizer adds before a text.

    Special tokens that it adds after a text are left out, because a prompt is continued.
    """
    return (*added_before(tokenizer), *tokenizer.encode(text, add_special_tokens=False))


def encode_prompts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return what :func:`encode_prompt` does for each of ``texts``; what comes before them is found once."""
    if not texts:
        return []
    before = added_before(tokenizer)
    encoded: Sequence[Sequence[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [(*before, *ids) for ids in encoded]


def added_before(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Return the special tokens that a tokenizer adds before a text, such as a beginning-of-text token."""
    for probe in chain((_PROBE,), _words(tokenizer)):
        encoded = tokenizer(probe, return_special_tokens_mask=True)
        added: Sequence[int] = encoded["special_tokens_mask"]
        if 0 in added:  # otherwise the probe became special tokens only, and the added ones cannot be told apart
            return tuple(encoded["input_ids"][: added.index(0)])
    return ()


def _words(tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    """Yield the text of each token of the vocabulary."""
    for token in tokenizer.get_vocab():
        yield tokenizer.convert_tokens_to_string([token])
