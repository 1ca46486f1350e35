"""Requirements of a comparison, such as ``parentheses - baseline >= 0.05 on tag:code by exact``.

The end of the interval that is closer to failing is compared: the lower end for ``>=`` and ``>``, the upper end for
``<=`` and ``<``. So a requirement holds only if the data show that it does.
"""

import math
import operator
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from steering_ab.errors import RequirementError
from steering_ab.statistics.intervals import Interval

FORM = "'ARM - ARM >= NUMBER', with 'on tag:TAG' and 'by GRADER' if wanted"
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_RULE = re.compile(
    r"\s*(?P<arm>\S+)(?:\s+[-−]\s+(?P<reference>\S+))?\s*(?P<operator>>=|<=|≥|≤|>|<)\s*(?P<value>[^\s]+)"
    r"(?:\s+on\s+tag:\s*(?P<tag>\"[^\"]+\"|.+?))?(?:\s+by\s+(?P<grader>\S.*?))?\s*"
)
_NUMBER = re.compile(r"[-+−]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?%?", re.IGNORECASE)


@dataclass(frozen=True)
class Requirement:
    """A requirement: of the difference of two arms, or of one arm's own mean."""

    text: str
    arm: str
    reference: str | None
    """None for a requirement of the arm's own mean."""
    operator: str
    value: float
    tag: str | None = None
    grader: str | None = None
    """None for the first one."""

    def holds(self, interval: Interval) -> bool:
        """Return whether the end of ``interval`` that is closer to failing fulfils the requirement."""
        return _OPERATORS[self.operator](self.end(interval), self.value)

    def end(self, interval: Interval) -> float:
        """Return the end of ``interval`` that is compared."""
        return interval.low if self.looks_at_low else interval.high

    @property
    def looks_at_low(self) -> bool:
        """Whether the lower end is compared."""
        return self.operator.startswith(">")


@dataclass(frozen=True)
class Checked:
    """A requirement and whether it holds."""

    requirement: Requirement
    holds: bool
    why: str
    """What was compared, in words."""

    def __str__(self) -> str:
        return f"{self.requirement.text}: {'holds' if self.holds else 'does not hold'}: {self.why}"


def parse_requirement(text: str) -> Requirement:
    """Return the requirement that ``text`` states.

    Raises:
        RequirementError: it is none; the message has the form of one.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise RequirementError(f"requirement {text!r} cannot be read; allowed: {FORM}, with spaces around the minus")
    given = match["value"]
    if not _NUMBER.fullmatch(given):
        raise RequirementError(f"requirement {text!r}: {given!r} is no number; allowed: a number such as 0.05 or 5%")
    value = float(given.replace("−", "-").removesuffix("%")) / (100 if given.endswith("%") else 1)
    if not math.isfinite(value):
        raise RequirementError(f"requirement {text!r}: {given!r} is not a finite number")
    sign = {"≥": ">=", "≤": "<="}.get(match["operator"], match["operator"])
    tag = match["tag"].strip('"') if match["tag"] else None
    return Requirement(text.strip(), match["arm"], match["reference"], sign, value, tag, match["grader"])


def require_known(
    requirements: Sequence[Requirement], arms: Collection[str], tags: Collection[str], graders: Collection[str]
) -> None:
    """Check that what ``requirements`` name is compared.

    Raises:
        RequirementError: an arm, a tag or a grader is not; the message names it and what there is.
    """
    for requirement in requirements:
        named = [requirement.arm] + ([requirement.reference] if requirement.reference is not None else [])
        for arm in named:
            if arm not in arms:
                hint = "; a minus has spaces around it" if "-" in arm and requirement.reference is None else ""
                known = ", ".join(arms)
                raise RequirementError(f"requirement {requirement.text!r}: {arm!r} is no arm; arms: {known}{hint}")
        if requirement.arm == requirement.reference:
            raise RequirementError(f"requirement {requirement.text!r} compares {requirement.arm!r} with itself")
        if requirement.tag is not None and requirement.tag not in tags:
            known = ", ".join(tags) or "the data set has none"
            raise RequirementError(
                f"requirement {requirement.text!r}: no item has the tag {requirement.tag!r}; tags: {known}"
            )
        if requirement.grader is not None and requirement.grader not in graders:
            known = ", ".join(graders)
            raise RequirementError(
                f"requirement {requirement.text!r}: {requirement.grader!r} is no grader of this run; graders: {known}"
            )
