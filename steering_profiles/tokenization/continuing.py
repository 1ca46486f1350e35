"""Whether a token goes on with the text before it, such as ``5`` after ``12``, or lets it end there.

After a letter or a digit those tokens go on that begin with a letter or a digit, and after any other character those
that begin with the same one. So ``12`` does not end before ``5`` or ``th``, and ``))`` not before ``)``. A point or a
comma ends a number, whatever comes after it.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from steering_profiles.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_CHARACTER = "\ufffd"


def goes_on(last: str, added: bytes) -> bool:
    """Return whether ``added`` goes on with a text whose last character is ``last``.

    A part of a character of several bytes is taken for a part of a letter.
    """
    first = added.decode(errors="replace")[:1]
    if last.isalnum():
        return first.isalnum() or first == _NO_CHARACTER
    return first == last


class Continuations:
    """The tokens of a tokenizer that go on with a text. The vocabulary is read when it is first needed."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[str, int], list[bool]] = {}

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._tokenizer)

    def goes_on(self, last: str, token: int) -> bool:
        """Return whether ``token`` goes on with a text whose last character is ``last``; a special token does not."""
        return not self._vocabulary.is_special(token) and goes_on(last, self._vocabulary.bytes_of(token))

    def of_all(self, last: str, size: int) -> list[bool]:
        """Return whether each of the first ``size`` tokens goes on with a text whose last character is ``last``."""
        kind = "0" if last.isalnum() else last  # all letters and digits have the same continuations
        if (kind, size) not in self._known:
            self._known[kind, size] = [self.goes_on(kind, token) for token in range(size)]
        return self._known[kind, size]
