"""Which words of two texts differ."""

import re
from difflib import SequenceMatcher

from steering_profiles.reports.blocks import Piece

_WORD = re.compile(r"\w+|\s+|[^\w\s]")
MOST_WORDS = 1500
"""Longer texts are compared up to so many words, since the time grows with the square."""


def marked(first: str, second: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Return both texts in pieces, of which those that the other text does not have are marked."""
    one, other = _WORD.findall(first), _WORD.findall(second)
    rest = ("".join(one[MOST_WORDS:]), "".join(other[MOST_WORDS:]))
    one, other = one[:MOST_WORDS], other[:MOST_WORDS]
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for side, words in zip(pieces, (one[a:b], other[c:d]), strict=True):
            if words:
                side.append(Piece("".join(words), kind != "equal"))
    for side, text in zip(pieces, rest, strict=True):
        if text:
            side.append(Piece(text))
    return tuple(pieces[0]), tuple(pieces[1])
