"""Turn profiles into per-row tensors and hooks. Fitting and serving run this same code."""

from steering_profiles.composition import UNSTEERED, AppliedProfile, Steering
from steering_profiles.steering.effects import Effect, effect_of
from steering_profiles.steering.gating import Gated, choose_logits, is_open, split, steered_logits
from steering_profiles.steering.hooks import SteeringHandle, attach
from steering_profiles.steering.sharing import StateKey, first_difference, state_key

__all__ = [
    "UNSTEERED",
    "AppliedProfile",
    "Effect",
    "Gated",
    "StateKey",
    "Steering",
    "SteeringHandle",
    "attach",
    "choose_logits",
    "effect_of",
    "first_difference",
    "is_open",
    "split",
    "state_key",
    "steered_logits",
]
