"""What a profile does: to its task, and to everything else."""

from steering_profiles.evaluation.accuracy import Accuracy, TokenPredictor
from steering_profiles.evaluation.corpora import fitting_texts, held_out_texts
from steering_profiles.evaluation.held_out import measure_side_effects
from steering_profiles.evaluation.prediction import TextPredictor
from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.evaluation.windows import Window, continuation_window, text_windows

__all__ = [
    "Accuracy",
    "SideEffects",
    "TextEffect",
    "TextPredictor",
    "TokenPredictor",
    "Window",
    "continuation_window",
    "fitting_texts",
    "held_out_texts",
    "measure_side_effects",
    "text_windows",
]
