"""How a prompt becomes token ids: one way for fitting and serving, so that both see the same prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "a"


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    """Return the token ids of ``text`` with the special tokens that the model's tokenizer puts before any text.

    Those that it puts after one are left out: a prompt goes on.
    """
    return (*added_before(tokenizer), *tokenizer.encode(text, add_special_tokens=False))


def added_before(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Return the special tokens that a tokenizer puts before every text, such as the one for its beginning."""
    whole: Sequence[int] = tokenizer.encode(_PROBE)
    plain: Sequence[int] = tokenizer.encode(_PROBE, add_special_tokens=False)
    places = range(len(whole) - len(plain) + 1)
    start = next((start for start in places if list(whole[start : start + len(plain)]) == list(plain)), 0)
    return tuple(whole[:start])
