"""Profiles as they are applied to one sequence: which, and at which strengths. As data; no torch."""

from dataclasses import dataclass
from functools import cached_property

from steering_profiles.schema import Gate, Profile, check_strength
from steering_profiles.store import content_hash


@dataclass(frozen=True, eq=False)
class ProfileAtStrength:
    """A profile at a strength.

    Raises:
        StrengthError: the strength is not a finite number in the allowed range.
    """

    profile: Profile
    strength: float = 1.0
    known_hash: str | None = None
    """The profile's content hash where the caller has it already; it is computed otherwise."""

    def __post_init__(self) -> None:
        check_strength(self.strength)

    @cached_property
    def key(self) -> tuple[str, float]:
        """What tells the state of two sequences apart: content hash and strength."""
        return self.known_hash or content_hash(self.profile), self.strength

    @property
    def gate(self) -> Gate | None:
        """What opens the profile's final layer; None where it has no gate, or at strength 0."""
        return self.profile.final_layer.gate if self.strength != 0 else None


Steering = tuple[ProfileAtStrength, ...]
"""Everything applied to one sequence; empty for the baseline."""

UNSTEERED: Steering = ()
