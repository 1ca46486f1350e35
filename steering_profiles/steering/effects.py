"""Effects of profiles at their strengths as factors and vectors.

The formulas at strength s are:

* head (l, h) with scale alpha:    ``z[l,h] *= 1 + s (alpha - 1)``
* neuron (l, i) with scale alpha:  ``m[l,i] *= 1 + s (alpha - 1)``
* self-only attention of degree w:  ``(1 - sw) attention + sw W_O(own value)``, ``sw`` clamped to 0..1
* intercept:  ``residual_stream -= s lambda b``

Profiles compose: scales multiply, intercepts add, and the largest share of self-only attention applies. All gated
profiles must have the same gate; the final-layer effects of profiles without one apply at every position
(:mod:`.gating`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.composition import Steering
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR
from steering_profiles.models import Sizes


@dataclass(frozen=True)
class Effect:
    """Factors of one steering, in float64. Layers that do not change are absent."""

    heads: dict[int, Tensor]
    """Per layer ``[heads]``."""
    neurons: dict[int, Tensor]
    """Per layer ``[neurons]``."""
    self_only_attention: float
    """Share of the final layer's attention output to replace by each position's own value, 0..1."""
    intercept: Tensor | None
    """``[hidden_size]``, subtracted where the output of the final MLP is added to the residual stream."""


def effect_of(steering: Steering, sizes: Sizes) -> Effect:
    """Return the effect of ``steering`` on a model of ``sizes``, where its gate is open and its conditions hold."""
    heads: dict[int, Tensor] = {}
    neurons: dict[int, Tensor] = {}
    self_only_attention = 0.0
    intercept: Tensor | None = None
    for applied in steering:
        profile, s = applied.profile, applied.strength
        if s == 0:
            continue
        for head in profile.heads:
            factors = heads.setdefault(head.layer, torch.ones(sizes.heads, dtype=torch.float64))
            factors[head.head] *= 1 + s * (head.scale - 1)
        for neuron in profile.neurons:
            factors = neurons.setdefault(neuron.layer, torch.ones(sizes.neurons, dtype=torch.float64))
            factors[neuron.neuron] *= 1 + s * (neuron.scale - 1)
        self_only_attention = max(self_only_attention, min(1.0, s * profile.final_layer.self_only_attention))
        if profile.final_layer.intercept_scale:
            b = torch.from_numpy(profile.tensors[INTERCEPT_TENSOR]).double()
            vector = s * profile.final_layer.intercept_scale * b
            intercept = vector if intercept is None else intercept + vector
    return Effect(_without_identities(heads), _without_identities(neurons), self_only_attention, intercept)


def _without_identities(factors: dict[int, Tensor]) -> dict[int, Tensor]:
    return {layer: row for layer, row in sorted(factors.items()) if bool((row != 1).any())}
