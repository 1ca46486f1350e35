"""How right a model is on a task, with and without steering."""

from steering_profiles.evaluation.accuracy import Accuracy, TokenPredictor

__all__ = ["Accuracy", "TokenPredictor"]
