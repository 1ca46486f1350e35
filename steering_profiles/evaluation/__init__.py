"""Evaluation of profiles: accuracy and calibration on tasks, side effects on other text, HumanEval."""

from steering_profiles.evaluation.accuracy import Accuracy, ScoredAnswer, TokenPredictor
from steering_profiles.evaluation.calibration import ArmCalibration, Calibration, CalibrationComparison
from steering_profiles.evaluation.corpora import fitting_texts, held_out_texts
from steering_profiles.evaluation.held_out import measure_side_effects
from steering_profiles.evaluation.prediction import TextPredictor
from steering_profiles.evaluation.replay import FinalLayerReplay
from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.evaluation.temperature import compare_calibration, tune_temperature
from steering_profiles.evaluation.windows import Window, continuation_window, text_windows

__all__ = [
    "Accuracy",
    "ArmCalibration",
    "Calibration",
    "CalibrationComparison",
    "FinalLayerReplay",
    "ScoredAnswer",
    "SideEffects",
    "TextEffect",
    "TextPredictor",
    "TokenPredictor",
    "Window",
    "compare_calibration",
    "continuation_window",
    "fitting_texts",
    "held_out_texts",
    "measure_side_effects",
    "text_windows",
    "tune_temperature",
]
