"""Make profiles. Offline only."""

from steering_profiles.fitting.rasteer import FitResult, FitSettings, fit_heads, rank_heads

__all__ = ["FitResult", "FitSettings", "fit_heads", "rank_heads"]
