"""Make profiles, and explain what a model does on a task. Offline only."""

from steering_profiles.fit_settings import METHODS, FinalLayerSettings, FitSettings, StepwiseSettings
from steering_profiles.fitting.checkpoint import FitCheckpoint, fit_key
from steering_profiles.fitting.explanation import Explanation, explain
from steering_profiles.fitting.final_layer import FinalLayerResult, fit_final_layer
from steering_profiles.fitting.final_layer_groups import FinalLayerGroupsResult, fit_final_layer_groups
from steering_profiles.fitting.rasteer import FitResult, fit, rank_components

__all__ = [
    "METHODS",
    "Explanation",
    "FinalLayerGroupsResult",
    "FinalLayerResult",
    "FinalLayerSettings",
    "FitCheckpoint",
    "FitResult",
    "FitSettings",
    "StepwiseSettings",
    "explain",
    "fit",
    "fit_final_layer",
    "fit_final_layer_groups",
    "fit_key",
    "rank_components",
]
