r"""Patterns: a subset of regular expressions, matched in time that grows with the text alone.

====================== =================================================================
``a``, ``\(``, ``\n``  a character; punctuation is escaped by a backslash, ``\n`` is a newline, ``\t`` a tab
``.``                  any character but a newline
``\d`` ``\w`` ``\s``   an ASCII digit; letter, digit or ``_``; white space. ``\D``, ``\W`` and ``\S`` are the others
``[a-z_]`` ``[^()]``   one of these characters; one that is none of these
``(...)`` ``a|b``      a group; either
``*`` ``+`` ``?``      any number, at least one, at most one of what is before
``{2}`` ``{2,}`` ``{2,5}``  so many of what is before
``^``                  as the first character: the match begins at the start of the text
====================== =================================================================

A pattern holds where the text so far *ends* with a match, so that a ``$`` is not needed.
"""

from collections.abc import Sequence
from functools import lru_cache

from steering_profiles.conditions.automaton import Automaton, StateGraph
from steering_profiles.conditions.characters import DIGITS, SPACE, WORD, Range, byte_sequences, complement

MOST_REPEATS = 100
MOST_NESTED = 50
_CLASSES: dict[str, tuple[Range, ...]] = {
    "d": DIGITS,
    "w": WORD,
    "s": SPACE,
    "D": complement(DIGITS),
    "W": complement(WORD),
    "S": complement(SPACE),
}
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_NOT_A_NEWLINE = complement(((0x0A, 0x0A),))


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Automaton:
    """Return the automaton of a pattern; those of the last patterns are kept, with what they have found.

    Raises:
        ValueError: this is not a pattern, or it is too large; the message says where and why.
    """
    return _Compiler(pattern).automaton()


class _Compiler:
    """Reads a pattern from left to right and builds the states of each part."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._graph = StateGraph(anchored=pattern.startswith("^"))

    def automaton(self) -> Automaton:
        self._at = int(self._graph.anchored)
        end = self._either(0)
        if self._at < len(self._pattern):
            raise self._error("a ) without its (")
        if end in self._graph.closure([0]):
            raise ValueError("the pattern matches the empty text, so it would hold everywhere")
        return Automaton(self._graph, end)

    def _either(self, start: int) -> int:
        """Build alternatives from state ``start`` on; return the state where they end."""
        end = self._graph.add()
        while True:
            self._graph.free[self._sequence(start)].append(end)
            if not self._take("|"):
                return end

    def _sequence(self, start: int) -> int:
        while (character := self._peek()) and character not in "|)":
            start = self._repeated(start)
        return start

    def _repeated(self, start: int) -> int:
        """Build one part, as often as the sign after it says."""
        begin = self._at
        end = self._part(begun := self._begun(start))
        low, high = self._bounds()
        if (low, high) == (1, 1):
            return end
        if self._peek() in ("*", "+", "?", "{"):
            raise self._error("a repetition of a repetition; put the first in a group")
        resume = self._at
        if high is None and low <= 1:
            self._graph.free[end].append(begun)
            if low == 0:
                self._graph.free[begun].append(end)
            return end
        # The part is read once for each time that it may occur; the first is there already.
        skips = [begun] if low == 0 else []
        for time in range(2, (low if high is None else high) + 1):
            if time > low:
                skips.append(end)
            self._at = begin
            end = self._part(begun := self._begun(end))
        if high is None:
            self._graph.free[end].append(begun)
        if skips:
            out = self._graph.add()
            for skipped in [*skips, end]:
                self._graph.free[skipped].append(out)
            end = out
        self._at = resume
        return end

    def _begun(self, state: int) -> int:
        """Return a new state after ``state``, to which a repetition can return without anything before it."""
        begun = self._graph.add()
        self._graph.free[state].append(begun)
        return begun

    def _bounds(self) -> tuple[int, int | None]:
        """Return how often the part before occurs, at least and at most; None for any number."""
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if not self._take("{"):
            return 1, 1
        opened = self._at
        low = self._number()
        high = low
        if self._take(","):
            high = None if self._peek() == "}" else self._number()
        if low is None or not self._take("}"):
            self._at = opened
            raise self._error("a { that is no repetition such as {2}, {2,} or {2,5}; write \\{ for the character")
        if max(low, high or 0) > MOST_REPEATS:
            raise self._error(f"more than {MOST_REPEATS} repetitions")
        if high is not None and high < max(low, 1):
            raise self._error(f"{low} to {high} repetitions; the second must be at least the first, and above 0")
        return low, high

    def _number(self) -> int | None:
        start = self._at
        while (self._peek() or "x") in "0123456789":
            self._at += 1
        return int(self._pattern[start : min(self._at, start + 6)]) if self._at > start else None

    def _part(self, start: int) -> int:
        """Build a group or one character."""
        if self._take("("):
            self._depth += 1
            if self._depth > MOST_NESTED:
                raise self._error(f"more than {MOST_NESTED} groups in each other")
            if self._take("?") and not self._take(":"):
                raise self._error("a group of a kind that is not supported; allowed: (...)")
            end = self._either(start)
            if not self._take(")"):
                raise self._error("a ( without its )")
            self._depth -= 1
            return end
        return self._characters(start, self._set() if self._take("[") else self._single())

    def _characters(self, start: int, ranges: Sequence[Range]) -> int:
        end = self._graph.add()
        for spelling in byte_sequences(ranges):
            state = start
            for place, bytes_ in enumerate(spelling, 1):
                following = end if place == len(spelling) else self._graph.add()
                self._graph.steps[state].append((bytes_, following))
                state = following
        return end

    def _single(self) -> Sequence[Range]:
        character = self._next()
        if character == ".":
            return _NOT_A_NEWLINE
        if character == "\\":
            return self._escaped()
        if character == "$":
            raise self._error(
                "a $, which is not needed: the text so far ends with the match; write \\$ for the character"
            )
        if character in "*+?{^":
            raise self._error(f"a {character} with nothing before it; write \\{character} for the character")
        return _only(character)

    def _escaped(self) -> Sequence[Range]:
        character = self._next("a \\ at the end")
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _ESCAPED:
            return _only(_ESCAPED[character])
        if character.isalnum():
            raise self._error(f"\\{character}; allowed after a backslash: d w s D W S n t r, and punctuation")
        return _only(character)

    def _set(self) -> Sequence[Range]:
        """Read a set from behind its bracket on."""
        negated = self._take("^")
        ranges: list[Range] = []
        while not self._take("]"):
            character = self._next("a [ without its ]")
            given = self._escaped() if character == "\\" else _only(character)
            if self._pattern[self._at : self._at + 1] == "-" and self._pattern[self._at + 1 : self._at + 2] not in (
                "]",
                "",
            ):
                self._at += 1
                last = self._next("a [ without its ]")
                to = self._escaped() if last == "\\" else _only(last)
                if len(given) != 1 or len(to) != 1 or given[0][0] > to[0][1]:
                    raise self._error("a range of characters that does not go upwards")
                given = ((given[0][0], to[0][1]),)
            ranges.extend(given)
        if not ranges:
            raise self._error("an empty set; write \\[ for the character")
        return complement(ranges) if negated else ranges

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, character: str) -> bool:
        taken = self._peek() == character
        self._at += taken
        return taken

    def _next(self, missing: str = "the end") -> str:
        character = self._peek()
        if not character:
            raise self._error(missing)
        self._at += 1
        return character

    def _error(self, what: str) -> ValueError:
        return ValueError(f"at character {self._at} there is {what}")


def _only(character: str) -> tuple[Range, ...]:
    return ((ord(character), ord(character)),)
