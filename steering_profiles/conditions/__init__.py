"""Conditions on the text: at which positions a profile takes effect. No torch."""

from steering_profiles.conditions.condition import Condition
from steering_profiles.conditions.trace import ConditionTrace

__all__ = ["Condition", "ConditionTrace"]
