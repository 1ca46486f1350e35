"""A grader that compares a number in the answer with the expected one."""

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer, require_expected

_EXPONENT = r"(?:[eE][-+]?\d+)?"
# A sign after a word or a bracket is an operator, as in 10-3.
_NUMBER = re.compile(
    rf"(?:(?<![\w)\]])[-+−])?(?:(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?{_EXPONENT}|(?<!\d)\.\d+{_EXPONENT})"
)
_ROUNDING = 1e-9  # relative; so that 0.1 is within 0.1 of 0.2


@dataclass(frozen=True)
class NumberMatch:
    """Whether the last number in the answer, or the first, is within a tolerance of an expected one."""

    tolerance: float = 0.0
    relative: bool = False
    """Whether the tolerance is a share of the expected number."""
    first: bool = False
    yes_no: ClassVar[bool] = True

    def require(self, item: Item) -> None:
        """Check that the expected answers are numbers."""
        require_expected(item)
        for expected in item.expected:
            if _number(expected) is None:
                raise GraderError(f"expected: is {expected!r:.60}; the grader number compares with a number")

    def grade(self, item: Item, answer: Answer) -> float:
        """Return 1 if the number is close enough to any of the expected ones; 0 without a number."""
        found = numbers_in(answer.text)
        if not found:
            return 0.0
        given = found[0 if self.first else -1]
        return float(any(self._close(given, _number(expected)) for expected in item.expected))

    def _close(self, given: float, expected: float | None) -> bool:
        assert expected is not None, "require has checked it"
        allowed = self.tolerance * abs(expected) if self.relative else self.tolerance
        return abs(given - expected) <= allowed + _ROUNDING * max(abs(given), abs(expected))


def number_match(argument: str | None) -> NumberMatch:
    """Return the grader for an argument such as ``0.01``, ``1%``, ``first`` or ``first,0.01``.

    Raises:
        GraderError: the argument is something else.
    """
    first, tolerance, relative = False, 0.0, False
    for part in (argument or "").split(",") if argument else ():
        word = part.strip()
        if word in ("first", "last"):
            first = word == "first"
            continue
        relative = word.endswith("%")
        try:
            tolerance = float(word.removesuffix("%"))
        except ValueError:
            tolerance = math.nan
        if not 0 <= tolerance < math.inf:
            raise GraderError(
                f"grader number:{argument}: {word!r} is no tolerance; allowed: a number such as 0.01, a share such as "
                "1%, first or last"
            )
        tolerance = tolerance / 100 if relative else tolerance
    return NumberMatch(tolerance, relative, first)


def numbers_in(text: str) -> list[float]:
    """Return the finite numbers in ``text``: with a sign, thousands separated by commas, a fraction, an exponent."""
    found = (_value(match[0]) for match in _NUMBER.finditer(text))
    return [value for value in found if math.isfinite(value)]


def _number(text: str) -> float | None:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    value = _value(match[0])
    return value if math.isfinite(value) else None


def _value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))
