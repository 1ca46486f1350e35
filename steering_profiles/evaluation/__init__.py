"""Evaluation of profiles: accuracy and calibration on tasks, side effects on other text, HumanEval."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering_profiles.evaluation.accuracy import Accuracy, ScoredAnswer, TokenPredictor
    from steering_profiles.evaluation.calibration import ArmCalibration, Calibration, CalibrationComparison
    from steering_profiles.evaluation.corpora import fitting_texts, held_out_texts
    from steering_profiles.evaluation.held_out import measure_side_effects
    from steering_profiles.evaluation.prediction import TextPredictor
    from steering_profiles.evaluation.replay import FinalLayerReplay
    from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
    from steering_profiles.evaluation.temperature import compare_calibration, tune_and_compare, tune_temperature
    from steering_profiles.evaluation.tempered import TemperedChange, TemperedComparison
    from steering_profiles.evaluation.windows import Window, continuation_window, text_windows

__all__ = [
    "Accuracy",
    "ArmCalibration",
    "Calibration",
    "CalibrationComparison",
    "FinalLayerReplay",
    "ScoredAnswer",
    "SideEffects",
    "TemperedChange",
    "TemperedComparison",
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
    "tune_and_compare",
    "tune_temperature",
]

_MODULES = {
    "Accuracy": "accuracy",
    "ScoredAnswer": "accuracy",
    "TokenPredictor": "accuracy",
    "ArmCalibration": "calibration",
    "Calibration": "calibration",
    "CalibrationComparison": "calibration",
    "fitting_texts": "corpora",
    "held_out_texts": "corpora",
    "measure_side_effects": "held_out",
    "TextPredictor": "prediction",
    "FinalLayerReplay": "replay",
    "SideEffects": "side_effects",
    "TextEffect": "side_effects",
    "compare_calibration": "temperature",
    "tune_and_compare": "temperature",
    "tune_temperature": "temperature",
    "TemperedChange": "tempered",
    "TemperedComparison": "tempered",
    "Window": "windows",
    "continuation_window": "windows",
    "text_windows": "windows",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the sandbox needs no tensor library."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
