"""Net effect of profiles at their strengths: the components that change, and warnings about what has no effect."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from steering_profiles.composition import Steering
from steering_profiles.conditions import Condition
from steering_profiles.fields import strength_text
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR
from steering_profiles.schema import Profile

_MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}

_SMALLEST = 1e-4
"""Assumed ratio of the smallest values of a layer to the values that are added to them."""


@dataclass(frozen=True)
class Effective:
    """Net effect of all profiles of one arm."""

    heads: int
    """Number of attention heads whose factor is not 1."""
    neurons: int
    """Number of feed-forward neurons whose factor is not 1."""
    self_only_attention: float
    """Share of the final layer's attention output that is replaced by each position's own value, 0..1."""
    intercept_scale: float
    """Factor of the MLP intercept that is subtracted; for different intercepts, the sum of the absolute factors."""
    gate: str | None = None
    """Band of the top probability in which the two final-layer effects apply, as ``0.1..0.5``; None: everywhere."""
    when: tuple[str, ...] = ()
    """The different conditions under which something takes effect; empty where everything does everywhere."""
    warnings: tuple[str, ...] = ()
    """Sentences about requested effects that do nothing or apply only in part."""

    @property
    def is_nothing(self) -> bool:
        """Whether the model computes the same as without steering."""
        return not (self.heads or self.neurons or self.self_only_attention or self.intercept_scale)


def effective(steering: Steering, dtype: str) -> Effective:
    """Return the net effect of ``steering`` on a model that computes in ``dtype``.

    The formulas are those of :mod:`steering_profiles.steering.effects`. Self-only attention is a share and is clamped
    to 0..1. A factor counts if it is not 1 in ``dtype``; a share or an intercept counts unless it is so small that
    rounding in ``dtype`` removes it.
    """
    active = [(applied.profile, applied.strength) for applied in steering if applied.strength != 0]
    parts = [(applied.profile, applied.strength) for applied in steering.parts if applied.strength != 0]
    heads = _factors(
        (p.when, (s.layer, s.head), 1 + strength * (s.scale - 1)) for p, strength in parts for s in p.heads
    )
    neurons = _factors(
        (p.when, (s.layer, s.neuron), 1 + strength * (s.scale - 1)) for p, strength in parts for s in p.neurons
    )
    shares = [
        _Share(p.name, p.when, strength * p.final_layer.self_only_attention)
        for p, strength in parts
        if p.final_layer.self_only_attention
    ]
    intercepts = [
        (p, strength * p.final_layer.intercept_scale) for p, strength in parts if p.final_layer.intercept_scale
    ]
    self_only_attention = max([0.0, *(share.clamped for share in shares if _counts(share.value, dtype))])
    intercept_scale = _composed_intercepts(intercepts, dtype)
    changed_heads, changed_neurons = _changed(heads, dtype), _changed(neurons, dtype)
    net = Effective(
        heads=changed_heads,
        neurons=changed_neurons,
        self_only_attention=self_only_attention,
        intercept_scale=intercept_scale,
        gate=str(steering.gate) if steering.gate is not None and (self_only_attention or intercept_scale) else None,
        when=tuple(map(str, steering.conditions)),
        warnings=(
            *_share_warnings(shares, dtype),
            *_intercept_warnings(intercepts, dtype),
            *_rounding_warnings("heads", len(heads), changed_heads, dtype),
            *_rounding_warnings("neurons", len(neurons), changed_neurons, dtype),
        ),
    )
    if not active or not net.is_nothing:
        return net
    names = "+".join(profile.name for profile, _ in active)
    why = "changes nothing at this strength"
    if all(profile.changes_nothing for profile, _ in active):
        why = "all that it changes is left out"
    nothing = f"{names}: {why}; the answer is the baseline's"
    return replace(net, warnings=(*net.warnings, nothing))


def self_only_attention_range(profile: Profile) -> tuple[float, float] | None:
    """Return the range of strengths that is not clamped for a profile's self-only attention; None if it has none."""
    share = max(part.final_layer.self_only_attention for part in profile.split())
    return (0.0, 1 / share) if share else None


def described_conditions(profile: Profile) -> str | None:
    """Return the conditions of a profile in words, separated by ``;``, or None if all of it takes effect everywhere."""
    return "; ".join(map(str, profile.conditions)) or None


@dataclass(frozen=True)
class _Share:
    """Self-only attention of one profile under one condition, or everywhere."""

    name: str
    when: Condition | None
    value: float

    @property
    def clamped(self) -> float:
        return min(1.0, self.value)

    def hides(self, other: "_Share") -> bool:
        """Return whether this one is larger, and applies wherever ``other`` does."""
        return self.clamped > other.value and (self.when is None or self.when == other.when)


def _factors(scaled: Iterable[tuple[Condition | None, tuple[int, int], float]]) -> list[list[float]]:
    """Return the factors of each scaled component: the product of all that apply under the same condition."""
    factors: dict[tuple[int, int], dict[Condition | None, list[float]]] = {}
    for condition, component, factor in scaled:
        factors.setdefault(component, {}).setdefault(condition, []).append(factor)
    return [[prod(several) for several in by_condition.values()] for by_condition in factors.values()]


def _changed(factors: Sequence[Sequence[float]], dtype: str) -> int:
    """Return the number of components with a factor that is not 1 in ``dtype``."""
    # Below 1 the spacing of numbers is half of that above 1; a number halfway is rounded to the even one, which is 1.
    step = _step(dtype)
    return sum(any(not 1 - step / 4 <= factor <= 1 + step / 2 for factor in some) for some in factors)


def _counts(scale: float, dtype: str) -> bool:
    """Return whether adding ``scale`` times one value to another can change it in ``dtype``."""
    return abs(scale) > _step(dtype) / 2 * _SMALLEST


def _composed_intercepts(intercepts: Sequence[tuple[Profile, float]], dtype: str) -> float:
    """Return the total factor of the intercepts of several profiles."""
    counted = [(profile.tensors[INTERCEPT_TENSOR], scale) for profile, scale in intercepts if _counts(scale, dtype)]
    if all(np.array_equal(vector, counted[0][0]) for vector, _ in counted):
        return sum(scale for _, scale in counted)
    return sum(abs(scale) for _, scale in counted)


def _step(dtype: str) -> float:
    """Return the distance from 1 to the next larger number of ``dtype``."""
    return 2.0 ** -_MANTISSA_BITS.get(dtype, _MANTISSA_BITS["float32"])


def _share_warnings(shares: Sequence[_Share], dtype: str) -> Iterable[str]:
    for share in shares:
        named = f"{share.name}: self-only attention"
        if not 0 <= share.value <= 1:
            clamped = "0 (none)" if share.value < 0 else "1 (all)"
            yield f"{named} would be {strength_text(share.value)}; it is clamped to {clamped}"
        elif not _counts(share.value, dtype):
            yield f"{named} {strength_text(share.value)} is too small to have an effect in {dtype}"
        elif any(other.hides(share) for other in shares if _counts(other.value, dtype)):
            yield f"{named} {strength_text(share.value)} has no effect beside another profile's"


def _intercept_warnings(intercepts: Iterable[tuple[Profile, float]], dtype: str) -> Iterable[str]:
    for profile, scale in intercepts:
        if not _counts(scale, dtype):
            yield (f"{profile.name}: {strength_text(scale)} of the intercept is too small to have an effect in {dtype}")


def _rounding_warnings(what: str, scaled: int, changed: int, dtype: str) -> Iterable[str]:
    if changed < scaled:
        yield f"{scaled - changed} of {scaled} {what} have a factor that rounds to 1 in {dtype} and do not change"
