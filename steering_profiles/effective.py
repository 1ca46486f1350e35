"""What profiles come to at their strengths: how much of the model changes, and what of it does nothing. No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from steering_profiles.schema import Profile, strength_text

_MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}


@dataclass(frozen=True)
class Effective:
    """What one arm changes, all of its profiles together."""

    heads: int
    """Attention heads whose factor is not 1."""
    neurons: int
    """Feed-forward neurons whose factor is not 1."""
    own_attention: float
    """Share of the final layer's attention that is replaced by each position's own value, 0..1."""
    intercept_scale: float
    """How much of the MLP's intercept is subtracted; the sum, where several profiles do."""
    warnings: tuple[str, ...] = ()
    """What was asked for and does nothing, or not in full; plain sentences."""


def effective(steering: Sequence[tuple[Profile, float]], dtype: str) -> Effective:
    """Compose profiles, each at its strength, and say what is changed in a model that computes in ``dtype``.

    The formulas are those of :mod:`steering_profiles.steering.effects`. Own-position attention is a share, which is
    held within 0..1: beyond that range a strength changes no more of it.
    """
    at_work = [(profile, strength) for profile, strength in steering if strength != 0]
    heads = _factors(((s.layer, s.head), 1 + strength * (s.scale - 1)) for p, strength in at_work for s in p.heads)
    neurons = _factors(
        ((s.layer, s.neuron), 1 + strength * (s.scale - 1)) for p, strength in at_work for s in p.neurons
    )
    shares = {p.name: strength * p.final_layer.own_attention for p, strength in at_work if p.final_layer.own_attention}
    own_attention = max([0.0, *(min(1.0, share) for share in shares.values())])
    intercepts = [strength * p.final_layer.intercept_scale for p, strength in at_work if p.final_layer.intercept_scale]
    changed_heads, changed_neurons = _changed(heads, dtype), _changed(neurons, dtype)
    warnings = [
        *_of_shares(shares, own_attention),
        *_of_rounding("heads", len(heads), changed_heads, dtype),
        *_of_rounding("neurons", len(neurons), changed_neurons, dtype),
    ]
    if at_work and not (changed_heads or changed_neurons or own_attention or intercepts):
        names = "+".join(profile.name for profile, _ in at_work)
        warnings.append(f"{names}: changes nothing at this strength; the answer is the baseline's")
    return Effective(changed_heads, changed_neurons, own_attention, sum(intercepts), tuple(warnings))


def own_attention_range(profile: Profile) -> tuple[float, float] | None:
    """Return the strengths within which a profile's own-position attention follows its strength; None without any."""
    share = profile.final_layer.own_attention
    return (0.0, 1 / share) if share else None


def _factors(scaled: Iterable[tuple[tuple[int, int], float]]) -> list[float]:
    """Return the factor of each component, over all profiles that scale it."""
    of: dict[tuple[int, int], list[float]] = {}
    for component, factor in scaled:
        of.setdefault(component, []).append(factor)
    return [prod(factors) for factors in of.values()]


def _changed(factors: Sequence[float], dtype: str) -> int:
    bits = _MANTISSA_BITS.get(dtype, _MANTISSA_BITS["float32"])
    # Numbers below 1 lie twice as close together as those above; halfway is rounded to the even one, which is 1.
    return sum(not 1 - 2.0 ** -(bits + 2) <= factor <= 1 + 2.0 ** -(bits + 1) for factor in factors)


def _of_shares(shares: dict[str, float], own_attention: float) -> Iterable[str]:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            held = "0, which is none" if share < 0 else "1, which is all"
            yield f"{name}: own-position attention would be {strength_text(share)} here; it is held at {held}"
        elif share < own_attention:
            yield f"{name}: own-position attention {strength_text(share)} does nothing beside another profile's"


def _of_rounding(what: str, scaled: int, changed: int, dtype: str) -> Iterable[str]:
    if changed < scaled:
        yield f"{scaled - changed} of {scaled} {what} have a factor that is 1 in {dtype}, and stay as they are"
