"""Make profiles, and explain what a model does on a task. Offline only."""

from steering_profiles.fitting.explanation import Explanation, explain
from steering_profiles.fitting.journal import Journal
from steering_profiles.fitting.rasteer import METHODS, FitResult, FitSettings, fit, fit_key, rank_components
from steering_profiles.fitting.stepwise import StepwiseSettings

__all__ = [
    "METHODS",
    "Explanation",
    "FitResult",
    "FitSettings",
    "Journal",
    "StepwiseSettings",
    "explain",
    "fit",
    "fit_key",
    "rank_components",
]
