"""Graders that compare the text of an answer with the expected ones."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer, require_expected, without_argument

REGEX_SECONDS = 1.0
"""Time limit of one search, since some patterns take exponential time."""


def normalised(text: str) -> str:
    """Return ``text`` without differences of case, of compatible characters (NFKC) and of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class TextMatch:
    """Whether an answer and an expected text ``match``, after both were ``prepared``."""

    prepared: Callable[[str], str]
    matches: Callable[[str, str], bool]
    yes_no: ClassVar[bool] = True

    def require(self, item: Item) -> None:
        """Check that there is an expected text, and that it is not empty after it was prepared."""
        require_expected(item)
        if self.matches("x", "") and not all(map(self.prepared, item.expected)):
            raise GraderError("expected: is empty, which every answer contains")

    def grade(self, item: Item, answer: Answer) -> float:
        """Return 1 if the answer matches any of the expected texts."""
        text = self.prepared(answer.text)
        return float(any(self.matches(text, self.prepared(expected)) for expected in item.expected))


def _unchanged(text: str) -> str:
    return text


def _equal(text: str, expected: str) -> bool:
    return text == expected


def _contains(text: str, expected: str) -> bool:
    return expected in text


MATCHES = {
    "exact": TextMatch(_unchanged, _equal),
    "normalised": TextMatch(normalised, _equal),
    "contains": TextMatch(normalised, _contains),
    "startswith": TextMatch(normalised, str.startswith),
}


def text_match(kind: str, argument: str | None) -> TextMatch:
    """Return the grader of this kind.

    Raises:
        GraderError: an argument is given.
    """
    without_argument(kind, argument)
    return MATCHES[kind]


@dataclass(frozen=True)
class RegexMatch:
    """Whether a regular expression is found in the answer: the grader's own, or else the expected ones."""

    pattern: str | None
    yes_no: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.pattern is not None:
            _compile(self.pattern, "grader regex")

    def require(self, item: Item) -> None:
        """Check that there is a pattern, and that it is a regular expression."""
        if self.pattern is None:
            require_expected(item)
            for expected in item.expected:
                _compile(expected, "expected")

    def grade(self, item: Item, answer: Answer) -> float:
        """Return 1 if any of the patterns is found.

        Raises:
            GraderError: the search takes longer than ``REGEX_SECONDS``.
        """
        import regex

        for pattern in (self.pattern,) if self.pattern is not None else item.expected:
            try:
                if regex.search(pattern, answer.text, timeout=REGEX_SECONDS):
                    return 1.0
            except TimeoutError as exc:
                raise GraderError(
                    f"pattern {pattern!r:.60} takes more than {REGEX_SECONDS:g} s on this answer; simplify it"
                ) from exc
        return 0.0


def _compile(pattern: str, what: str) -> None:
    import regex

    try:
        regex.compile(pattern)
    except regex.error as exc:
        raise GraderError(f"{what}: {pattern!r:.60} is not a regular expression: {exc}") from exc
