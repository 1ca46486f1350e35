"""Turn profiles into per-row tensors and hooks. Fitting and serving run this same code."""

from steering_profiles.composition import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.steering.effects import Effect, effect_of
from steering_profiles.steering.gating import Gated, choose_logits, is_open, split, steered_logits
from steering_profiles.steering.hooks import SteeringHandle, attach
from steering_profiles.steering.sharing import KVCacheKey, divergence_layer, kv_cache_key

__all__ = [
    "UNSTEERED",
    "Effect",
    "Gated",
    "KVCacheKey",
    "ProfileAtStrength",
    "Steering",
    "SteeringHandle",
    "attach",
    "choose_logits",
    "divergence_layer",
    "effect_of",
    "is_open",
    "kv_cache_key",
    "split",
    "steered_logits",
]
