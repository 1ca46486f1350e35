"""What a grader is, and what it is given."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError


@dataclass(frozen=True)
class Answer:
    """The answer of one arm to one item."""

    text: str
    finish_reason: str | None = None
    """``stop``, or ``length`` where the answer was cut at its maximum of tokens; None if the server does not say."""
    prompt_tokens: int | None = None
    tokens: int | None = None
    """Number of generated tokens; None if the server does not say."""
    seconds: float | None = None
    """Time from the request to the end of the answer."""
    first_token_seconds: float | None = None
    choice_logprobs: tuple[float, ...] = ()
    """Log-probability of each of the item's choices as the continuation of its prompt."""


@runtime_checkable
class Grader(Protocol):
    """Grades answers one by one. The entry point group ``steering_server.graders`` adds your own."""

    @property
    def yes_no(self) -> bool:
        """Whether every grade is 0 or 1."""

    def require(self, item: Item) -> None:
        """Check that answers to ``item`` can be graded.

        Raises:
            GraderError: they cannot; the message names the field of the item.
        """

    def grade(self, item: Item, answer: Answer) -> float:
        """Return the grade of ``answer``; greater is better, unless the comparison is of something else."""


@dataclass(frozen=True)
class Verdict:
    """What a pairwise grader says of two answers."""

    preference: float
    """1 if the second answer is better, -1 if the first is, 0 for a tie."""
    agreed: bool = True
    """Whether it said the same when it was asked in the other order."""
    replies: tuple[str, ...] = ()


@runtime_checkable
class PairwiseGrader(Protocol):
    """Grades two answers to an item by comparing them."""

    async def prefer(self, item: Item, first: Answer, second: Answer) -> Verdict:
        """Return which of two answers to ``item`` is better."""


@dataclass(frozen=True)
class NamedGrader:
    """A grader as it was asked for."""

    name: str
    """Its name and argument, such as ``number:0.01``."""
    grader: Grader | PairwiseGrader
    identity: str = ""
    """What else its grades depend on, such as the judge's model."""

    @property
    def yes_no(self) -> bool:
        """Whether every grade is 0 or 1."""
        return isinstance(self.grader, Grader) and self.grader.yes_no


def require_expected(item: Item) -> None:
    """Check that an item has at least one right answer.

    Raises:
        GraderError: it has none.
    """
    if not item.expected:
        raise GraderError("expected: is missing; the grader compares answers with it")


def text_column(item: Item, *names: str) -> str | None:
    """Return the text in the first of the item's own columns ``names`` that it has.

    Raises:
        GraderError: it is not text.
    """
    for name in names:
        value = item.columns.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise GraderError(f"{name}: is {value!r:.60}; allowed: text")
            return value
    return None


def without_argument(kind: str, argument: str | None) -> None:
    """Check that a grader that takes no argument was given none.

    Raises:
        GraderError: it was given one.
    """
    if argument is not None:
        raise GraderError(f"grader {kind}:{argument}: {kind} takes no argument")
