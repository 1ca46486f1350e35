"""Computation that sequences with different steerings can share.

The keys and values of a layer come from its input. So sequences that diverge at layer ``l`` have the same keys and
values up to and including layer ``l``, and the same residual stream below it. Effects of the final layer, gated or not,
change no key or value.
"""

import torch

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.errors import ConditionError
from steering_profiles.models import Sizes
from steering_profiles.steering.effects import Effect, effect_of

KVCacheKey = tuple[tuple[str, float], ...]
"""Content hash and strength of each profile that changes keys and values; empty if none does.

The hash is that of the whole profile, its conditions included, and with it stands which part of the profile it is, if
that has several. A condition that tests whether a position is in the prompt depends on more than the tokens: then the
prompt's length is part of the key.
"""


def kv_cache_key(steering: Steering, sizes: Sizes, prompt_length: int | None = None) -> KVCacheKey:
    """Return what of ``steering`` the keys and values of a sequence depend on.

    Raises:
        ConditionError: a condition depends on ``prompt_length``, which is not given.
    """
    changing = [part for part in steering.parts if part.strength and _changes_kv_cache(part, sizes)]
    key = tuple(sorted(part.key for part in changing))
    if not any(part.condition is not None and part.condition.tests_part for part in changing):
        return key
    if prompt_length is None:
        raise ConditionError("a condition tests where the prompt ends, and the prompt's length is not known")
    return (*key, ("prompt length", float(prompt_length)))


def divergence_layer(one: Steering, other: Steering, sizes: Sizes) -> int:
    """Return the first layer whose computation differs between two steerings; ``sizes.layers`` if none differs.

    It is that of two sequences with the same tokens and the same prompt. What takes effect under the same condition
    does so at the same positions; what is changed is compared condition by condition.
    """
    conditions = dict.fromkeys((None, *one.conditions, *other.conditions))
    return min(_divergence(one.under(condition), other.under(condition), sizes) for condition in conditions)


def _divergence(one: Steering, other: Steering, sizes: Sizes) -> int:
    a, b = effect_of(one, sizes), effect_of(other, sizes)
    layers = sorted(a.heads.keys() | b.heads.keys() | a.neurons.keys() | b.neurons.keys())
    for layer in layers:
        if not (_same(a.heads.get(layer), b.heads.get(layer)) and _same(a.neurons.get(layer), b.neurons.get(layer))):
            return layer
    return sizes.layers if _same_end(a, b) and _same_gates(one, other) else sizes.layers - 1


def _changes_kv_cache(applied: ProfileAtStrength, sizes: Sizes) -> bool:
    layers = [scale.layer for scale in applied.profile.heads] + [scale.layer for scale in applied.profile.neurons]
    return any(layer < sizes.layers - 1 for layer in layers)


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _same_gates(one: Steering, other: Steering) -> bool:
    if one.gate is None and other.gate is None:
        return True
    return sorted(applied.key for applied in one) == sorted(applied.key for applied in other)


def _same_end(a: Effect, b: Effect) -> bool:
    return a.self_only_attention == b.self_only_attention and _same(a.intercept, b.intercept)
