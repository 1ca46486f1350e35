"""What profiles come to at their strengths: how much of the model changes, and what of it does nothing. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from steering_profiles.composition import Steering
from steering_profiles.schema import INTERCEPT_TENSOR, Profile, strength_text

_MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}

_SMALLEST = 1e-4
"""How small the values of a layer may be, as a share of what is added to them; the rest are larger."""


@dataclass(frozen=True)
class Effective:
    """What one arm changes, all of its profiles together."""

    heads: int
    """Attention heads whose factor is not 1."""
    neurons: int
    """Feed-forward neurons whose factor is not 1."""
    self_only_attention: float
    """Share of the final layer's attention that is replaced by each position's own value, 0..1."""
    intercept_scale: float
    """How much of the MLP's intercept is subtracted; of different intercepts the sum of how much of each is."""
    gate: str | None = None
    """The band of the top probability in which the last two take place, as ``0.1..0.5``; None: everywhere."""
    warnings: tuple[str, ...] = ()
    """What was asked for and does nothing, or not in full; plain sentences."""

    @property
    def is_nothing(self) -> bool:
        """Whether the model computes what it computes unsteered."""
        return not (self.heads or self.neurons or self.self_only_attention or self.intercept_scale)


def effective(steering: Steering, dtype: str) -> Effective:
    """Compose profiles, each at its strength, and say what is changed in a model that computes in ``dtype``.

    The formulas are those of :mod:`steering_profiles.steering.effects`. Self-only attention is a share, which is
    held within 0..1: beyond that range a strength changes no more of it. A factor counts if it is not 1 in ``dtype``,
    a share or an intercept if it is not so little that rounding in ``dtype`` takes it away.
    """
    at_work = [(applied.profile, applied.strength) for applied in steering if applied.strength != 0]
    heads = _factors(((s.layer, s.head), 1 + strength * (s.scale - 1)) for p, strength in at_work for s in p.heads)
    neurons = _factors(
        ((s.layer, s.neuron), 1 + strength * (s.scale - 1)) for p, strength in at_work for s in p.neurons
    )
    shares = {
        p.name: strength * p.final_layer.self_only_attention
        for p, strength in at_work
        if p.final_layer.self_only_attention
    }
    intercepts = {
        p.name: strength * p.final_layer.intercept_scale for p, strength in at_work if p.final_layer.intercept_scale
    }
    self_only_attention = max([0.0, *(min(1.0, share) for share in shares.values() if _counts(share, dtype))])
    intercept_scale = _composed([(p, intercepts[p.name]) for p, _ in at_work if p.name in intercepts], dtype)
    changed_heads, changed_neurons = _changed(heads, dtype), _changed(neurons, dtype)
    found = Effective(
        heads=changed_heads,
        neurons=changed_neurons,
        self_only_attention=self_only_attention,
        intercept_scale=intercept_scale,
        gate=str(steering.gate) if steering.gate is not None and (self_only_attention or intercept_scale) else None,
        warnings=(
            *_of_shares(shares, self_only_attention, dtype),
            *_of_intercepts(intercepts, dtype),
            *_of_rounding("heads", len(heads), changed_heads, dtype),
            *_of_rounding("neurons", len(neurons), changed_neurons, dtype),
        ),
    )
    if not at_work or not found.is_nothing:
        return found
    names = "+".join(profile.name for profile, _ in at_work)
    nothing = f"{names}: changes nothing at this strength; the answer is the baseline's"
    return replace(found, warnings=(*found.warnings, nothing))


def self_only_attention_range(profile: Profile) -> tuple[float, float] | None:
    """Return the strengths within which a profile's self-only attention follows its strength; None without any."""
    share = profile.final_layer.self_only_attention
    return (0.0, 1 / share) if share else None


def _factors(scaled: Iterable[tuple[tuple[int, int], float]]) -> list[float]:
    """Return the factor of each component, over all profiles that scale it."""
    of: dict[tuple[int, int], list[float]] = {}
    for component, factor in scaled:
        of.setdefault(component, []).append(factor)
    return [prod(factors) for factors in of.values()]


def _changed(factors: Sequence[float], dtype: str) -> int:
    """Return how many factors are not 1 in ``dtype``."""
    # Numbers below 1 lie twice as close together as those above; halfway is rounded to the even one, which is 1.
    step = _step(dtype)
    return sum(not 1 - step / 4 <= factor <= 1 + step / 2 for factor in factors)


def _counts(scale: float, dtype: str) -> bool:
    """Whether ``scale`` times one value, added to another, can be more than rounding in ``dtype`` takes away."""
    return abs(scale) > _step(dtype) / 2 * _SMALLEST


def _composed(intercepts: Sequence[tuple[Profile, float]], dtype: str) -> float:
    """Return how much is subtracted of what several profiles take for the intercept."""
    counted = [(profile.tensors[INTERCEPT_TENSOR], scale) for profile, scale in intercepts if _counts(scale, dtype)]
    if all(np.array_equal(vector, counted[0][0]) for vector, _ in counted):
        return sum(scale for _, scale in counted)
    return sum(abs(scale) for _, scale in counted)


def _step(dtype: str) -> float:
    """Return how far the next number above 1 is."""
    return 2.0 ** -_MANTISSA_BITS.get(dtype, _MANTISSA_BITS["float32"])


def _of_shares(shares: Mapping[str, float], self_only_attention: float, dtype: str) -> Iterable[str]:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            held = "0, which is none" if share < 0 else "1, which is all"
            yield f"{name}: self-only attention would be {strength_text(share)} here; it is held at {held}"
        elif not _counts(share, dtype):
            yield f"{name}: self-only attention {strength_text(share)} is too little to count in {dtype}"
        elif share < self_only_attention:
            yield f"{name}: self-only attention {strength_text(share)} does nothing beside another profile's"


def _of_intercepts(intercepts: Mapping[str, float], dtype: str) -> Iterable[str]:
    for name, scale in intercepts.items():
        if not _counts(scale, dtype):
            yield f"{name}: {strength_text(scale)} of the intercept is too little to count in {dtype}"


def _of_rounding(what: str, scaled: int, changed: int, dtype: str) -> Iterable[str]:
    if changed < scaled:
        yield f"{scaled - changed} of {scaled} {what} have a factor that is 1 in {dtype}, and stay as they are"
