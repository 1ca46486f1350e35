"""Make profiles. Offline only."""

from steering_profiles.fitting.journal import Journal
from steering_profiles.fitting.rasteer import METHODS, FitResult, FitSettings, fit, fit_key, rank_components
from steering_profiles.fitting.stepwise import StepwiseSettings

__all__ = [
    "METHODS",
    "FitResult",
    "FitSettings",
    "Journal",
    "StepwiseSettings",
    "fit",
    "fit_key",
    "rank_components",
]
