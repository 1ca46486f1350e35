"""Temperature scaling: the baseline for claims about confidence, tuned on dev."""

from collections.abc import Sequence

from steering_profiles.evaluation.accuracy import TokenPredictor
from steering_profiles.evaluation.calibration import (
    CalibrationComparison,
    GroupedCalibration,
    calibrate_arm,
    calibrate_groups,
)
from steering_profiles.progress import Progress
from steering_profiles.steering import Steering
from steering_profiles.tasks.task import Example

_COARSE = tuple(2 ** (power / 4) for power in range(-12, 13))  # 1/8..8
_STEPS = 16
"""Number of steps of the fine grid around the best coarse temperature."""


def tune_temperature(
    predictor: TokenPredictor, dev: Sequence[Example], progress: Progress | None = None
) -> tuple[float, GroupedCalibration]:
    """Return the temperature that minimises the unsteered model's NLL on ``dev``, and the calibration at it.

    The NLL is averaged over groups. It is convex in 1/T, so the minimum is between the neighbours of the best point of
    a grid. A coarse grid over 1/8..8 is searched first, then a fine one with steps of about 2% around its best point.
    This takes two passes over ``dev``.
    """
    found = _measured(predictor, dev, _COARSE, progress)
    at = _COARSE.index(min(found, key=lambda temperature: found[temperature].balanced_nll))
    low, high = _COARSE[max(0, at - 1)], _COARSE[min(at + 1, len(_COARSE) - 1)]
    fine = [low * (high / low) ** (step / _STEPS) for step in range(_STEPS + 1)]
    found = _measured(predictor, dev, fine, progress)
    return min(found.items(), key=lambda one: one[1].balanced_nll)


def compare_calibration(
    predictor: TokenPredictor,
    examples: Sequence[Example],
    steering: Steering,
    temperature: float,
    progress: Progress | None = None,
) -> CalibrationComparison:
    """Measure the calibration of the unsteered model, the steered one, and the unsteered one at ``temperature``."""
    plain = predictor.answers_at(examples, (1.0, temperature), progress=progress)
    baseline, tempered = plain[1.0], plain[temperature]
    steered = predictor.answers(examples, steering, progress)
    return CalibrationComparison(
        baseline=calibrate_arm(baseline, baseline),
        profile=calibrate_arm(steered, baseline),
        tempered=calibrate_arm(tempered, baseline),
        temperature=temperature,
    )


def _measured(
    predictor: TokenPredictor, dev: Sequence[Example], temperatures: Sequence[float], progress: Progress | None
) -> dict[float, GroupedCalibration]:
    answers = predictor.answers_at(dev, temperatures, progress=progress)
    return {temperature: calibrate_groups(some) for temperature, some in answers.items()}
