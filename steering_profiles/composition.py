"""Profiles at strengths, composed into the steering of one sequence. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from steering_profiles.errors import GateError
from steering_profiles.schema import Gate, Profile, check_strength
from steering_profiles.store import content_hash


@dataclass(frozen=True, eq=False)
class ProfileAtStrength:
    """A profile and the strength at which it is applied.

    Raises:
        StrengthError: the strength is not a finite number in the allowed range.
    """

    profile: Profile
    strength: float = 1.0
    known_hash: str | None = None
    """Content hash of the profile if it is already known; otherwise it is computed when needed."""

    def __post_init__(self) -> None:
        check_strength(self.strength)

    @cached_property
    def key(self) -> tuple[str, float]:
        """Content hash and strength: equal keys have equal effects."""
        return self.known_hash or content_hash(self.profile), self.strength

    @property
    def gate(self) -> Gate | None:
        """Gate of the profile's final layer; None if it has none, or at strength 0."""
        return self.profile.final_layer.gate if self.strength != 0 else None


@dataclass(frozen=True, eq=False)
class Steering:
    """All profiles applied to one sequence; empty for the baseline.

    Profiles with the same gate are gated together: the probability that the gate tests is computed without the
    final-layer effects of all of them.

    Raises:
        GateError: two profiles have different gates, which one such probability cannot serve.
    """

    profiles: tuple[ProfileAtStrength, ...] = ()
    gate: Gate | None = field(init=False)
    """Common gate of the profiles; None if none is gated at a strength other than 0."""

    def __post_init__(self) -> None:
        gated = [(one.profile.name, gate) for one in self.profiles if (gate := one.profile.final_layer.gate)]
        if len({gate for _, gate in gated}) > 1:
            named = " and ".join(f"{name} ({gate})" for name, gate in gated)
            raise GateError(
                f"profiles with different gates cannot be composed: {named}; use one of them, or equal gates"
            )
        object.__setattr__(self, "gate", next((one.gate for one in self.profiles if one.gate), None))

    def __iter__(self) -> Iterator[ProfileAtStrength]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)


UNSTEERED = Steering()
