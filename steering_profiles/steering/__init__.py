"""Turn profiles into per-row tensors and hooks. Fitting and serving run this same code."""

from steering_profiles.steering.effects import UNSTEERED, AppliedProfile, Effect, Steering, effect_of
from steering_profiles.steering.hooks import SteeringHandle, attach

__all__ = ["UNSTEERED", "AppliedProfile", "Effect", "Steering", "SteeringHandle", "attach", "effect_of"]
