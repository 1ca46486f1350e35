"""How a prompt becomes token ids: one way for fitting and serving, so that both see the same prompt."""

from collections.abc import Iterator, Sequence
from itertools import chain
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
    for probe in chain((_PROBE,), _words(tokenizer)):
        encoded = tokenizer(probe, return_special_tokens_mask=True)
        added: Sequence[int] = encoded["special_tokens_mask"]
        if 0 in added:  # else nothing of the probe is known, and what is put before it cannot be told from the rest
            return tuple(encoded["input_ids"][: added.index(0)])
    return ()


def _words(tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    """Yield texts of which the tokenizer should know something."""
    for piece in tokenizer.get_vocab():
        yield tokenizer.convert_tokens_to_string([piece])
