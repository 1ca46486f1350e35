"""Profiles at strengths, composed into the steering of one sequence. No torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from steering_profiles.conditions import Condition
from steering_profiles.errors import GateError
from steering_profiles.final_layer_fields import FinalLayer, Gate
from steering_profiles.schema import Profile, check_strength
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
    left_out: tuple[str, ...] = ()
    """Components that the profile lacks, of those in the profile of this name, see :mod:`.leaving_out`."""

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

    @property
    def condition(self) -> Condition | None:
        """Condition of a profile whose parts have none of their own; None if it has none, or at strength 0."""
        return self.profile.when if self.strength != 0 else None

    @cached_property
    def parts(self) -> tuple["ProfileAtStrength", ...]:
        """What together has the same effect, with at most one condition each; only itself if nothing has its own."""
        if not self.profile.final_layers and all(scale.when is None for scale in self.profile.scales):
            return (self,)
        split = _split(_Key(self.key[0], self.profile))
        return tuple(
            replace(self, profile=part, known_hash=f"{self.key[0]} part {place}") for place, part in enumerate(split)
        )

    def changed(self, state: str, **changes: object) -> "ProfileAtStrength":
        """Return the profile with ``changes`` to its fields, which make it another one: ``state`` is part of its key.

        Hashing the whole content of a profile would take longer than the rest of a request.
        """
        profile = self.profile.model_copy(update=changes)
        return replace(self, profile=profile, known_hash=f"{self.key[0]} {state}")


@dataclass(frozen=True)
class _Key:
    """A profile, compared by its content hash: it can have very many scales."""

    content_hash: str
    profile: Profile = field(compare=False, repr=False)


@lru_cache(maxsize=64)
def _split(key: _Key) -> tuple[Profile, ...]:
    return key.profile.split()


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
        return self._ungated(lambda one: one.changed("closed", final_layer=FinalLayer(), tensors={}))

    @property
    def opened(self) -> "Steering":
        """The steering where the gate is open: everything, without a gate."""
        return self._ungated(
            lambda one: one.changed("opened", final_layer=one.profile.final_layer.model_copy(update={"gate": None}))
        )

    @cached_property
    def parts(self) -> tuple[ProfileAtStrength, ...]:
        """The profiles with at most one condition each: one that has conditions of its scales is in several parts."""
        return tuple(part for one in self.profiles for part in one.parts)

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """The different conditions of the parts, in order; empty where all of them take effect everywhere."""
        return tuple(dict.fromkeys(one.condition for one in self.parts if one.condition is not None))

    def where(self, held: int) -> "Steering":
        """Return the steering of a position, without conditions.

        Bit ``i`` of ``held`` is set where ``conditions[i]`` holds, as :meth:`.ConditionTrace.held` returns it.
        """
        if not self.conditions:
            return self
        holding = {condition for i, condition in enumerate(self.conditions) if held >> i & 1}
        return Steering(
            tuple(
                one if one.condition is None else one.changed("unconditional", when=None)
                for one in self.parts
                if one.condition is None or one.condition in holding
            )
        )

    def under(self, condition: Condition | None) -> "Steering":
        """Return the parts that have this condition, or none."""
        return Steering(tuple(one for one in self.parts if one.condition == condition))

    def _ungated(self, change: Callable[[ProfileAtStrength], ProfileAtStrength]) -> "Steering":
        """Return the steering with its gated parts changed; it has the same conditions."""
        if self.gate is None:
            return self
        return Steering(tuple(one if one.gate is None else change(one) for one in self.parts))

    def __iter__(self) -> Iterator[ProfileAtStrength]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)


UNSTEERED = Steering()
