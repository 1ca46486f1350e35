"""A grader that measures how long an answer is."""

from dataclasses import dataclass
from typing import ClassVar

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer

UNITS = ("characters", "words", "tokens")


@dataclass(frozen=True)
class Length:
    """The length of an answer in ``unit``."""

    unit: str
    yes_no: ClassVar[bool] = False

    def require(self, item: Item) -> None:
        """Every answer has a length."""

    def grade(self, item: Item, answer: Answer) -> float:
        """Return the length.

        Raises:
            GraderError: tokens are counted, and the server does not say how many there are.
        """
        match self.unit:
            case "characters":
                return float(len(answer.text))
            case "words":
                return float(len(answer.text.split()))
        if answer.tokens is None:
            raise GraderError("the server does not say the number of tokens; measure length:characters or length:words")
        return float(answer.tokens)


def length(argument: str | None) -> Length:
    """Return the grader for a unit, by default characters.

    Raises:
        GraderError: there is no such unit.
    """
    unit = argument or UNITS[0]
    if unit not in UNITS:
        raise GraderError(f"grader length:{unit}: {unit!r} is no unit; allowed: {', '.join(UNITS)}")
    return Length(unit)
