"""Steering of models: profiles become per-row factors, applied by forward hooks. Used by fitting and serving."""

from steering_profiles.composition import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.steering.effects import Effect, effect_of
from steering_profiles.steering.gating import choose_logits, is_open, steered_logits
from steering_profiles.steering.hooks import SteeringHandle, attach
from steering_profiles.steering.reading import TextReader
from steering_profiles.steering.sharing import KVCacheKey, divergence_layer, kv_cache_key
from steering_profiles.steering.table import SteeringTable
from steering_profiles.steering.token_rows import TokenRows

__all__ = [
    "UNSTEERED",
    "Effect",
    "KVCacheKey",
    "ProfileAtStrength",
    "Steering",
    "SteeringHandle",
    "SteeringTable",
    "TextReader",
    "TokenRows",
    "attach",
    "choose_logits",
    "divergence_layer",
    "effect_of",
    "is_open",
    "kv_cache_key",
    "steered_logits",
]
