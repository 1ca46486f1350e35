"""The text that names profiles and their strength: ``a``, ``a+b``, ``a+b@0.5``, or ``baseline`` for none."""

import re
from dataclasses import dataclass

from steering_profiles.errors import LabelError, StrengthError
from steering_profiles.fields import strength_text
from steering_profiles.schema import BASELINE, MAX_STRENGTH, check_strength

SEPARATOR = "+"
"""Separator of profiles that are applied together."""

AT = "@"
"""Separator of profiles and their strength."""

MAX_PROFILES = 16
"""Maximum number of profiles that are applied together."""

_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e-?\d+)?", re.IGNORECASE | re.ASCII)
_SHOWN = 40  # characters of an invalid value in a message


@dataclass(frozen=True)
class Label:
    """Names of profiles and the strength of all of them."""

    names: tuple[str, ...] = ()
    """None for the baseline."""
    strength: float = 1.0

    def __str__(self) -> str:
        """The label of these profiles in answers; :func:`parse_label` reads it."""
        if not self.names:
            return BASELINE
        joined = SEPARATOR.join(self.names)
        return joined if self.strength == 1 else f"{joined}{AT}{strength_text(self.strength)}"


def parse_label(text: str) -> Label:
    """Return what ``text`` names. Whether there are such profiles is not checked.

    Raises:
        LabelError: a strength is not a number in the allowed range, does not stand at the end or has no profile, or
            there are too many profiles; the message names the value and what is allowed.
    """
    joined, at, given = text.partition(AT)
    if joined == BASELINE:
        if at:
            raise LabelError(f"{BASELINE} has no strength (given: {_shown(given)})")
        return Label()
    names = tuple(joined.split(SEPARATOR, MAX_PROFILES))
    if len(names) > MAX_PROFILES:
        raise LabelError(f"names more than {MAX_PROFILES} profiles; at most {MAX_PROFILES} are allowed")
    if BASELINE in names:
        raise LabelError(f"{BASELINE} is the unsteered model and cannot be combined with profiles")
    return Label(names, _strength(given) if at else 1.0)


def _strength(given: str) -> float:
    allowed = f"a number in {-MAX_STRENGTH:g}..{MAX_STRENGTH:g} at the end, such as a@0.5 or a+b@0.5"
    if not _NUMBER.fullmatch(given):
        raise LabelError(f"the strength after {AT} is {_shown(given)}; allowed: {allowed}")
    try:
        return check_strength(float(given)) + 0.0  # -0 becomes 0
    except StrengthError as exc:
        raise LabelError(f"the strength after {AT} is {_shown(given)}; allowed: {allowed}") from exc


def _shown(value: str) -> str:
    return ascii(value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "...")
