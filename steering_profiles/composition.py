"""Profiles at strengths, composed into the steering of one sequence. No torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from steering_profiles.errors import GateError
from steering_profiles.schema import FinalLayer, Gate, Profile, check_strength
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

    @property
    def closed(self) -> "Steering":
        """The steering where the gate is closed: without the final layers of gated profiles."""
        return self._ungated("closed", lambda profile: {"final_layer": FinalLayer(), "tensors": {}})

    @property
    def opened(self) -> "Steering":
        """The steering where the gate is open: everything, without a gate."""
        return self._ungated(
            "opened", lambda profile: {"final_layer": profile.final_layer.model_copy(update={"gate": None})}
        )

    def _ungated(self, state: str, changes: Callable[[Profile], dict[str, object]]) -> "Steering":
        """Return the steering with ``changes`` to its gated profiles."""
        if self.gate is None:
            return self

        def ungated(one: ProfileAtStrength) -> ProfileAtStrength:
            if one.gate is None:
                return one
            # It is another profile now, so it needs another hash; hashing its whole content would take longer.
            profile = one.profile.model_copy(update=changes(one.profile))
            return replace(one, profile=profile, known_hash=f"{one.key[0]} {state}")

        return Steering(tuple(ungated(one) for one in self.profiles))

    def __iter__(self) -> Iterator[ProfileAtStrength]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)


UNSTEERED = Steering()
