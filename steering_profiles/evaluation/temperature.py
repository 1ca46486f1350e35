"""The baseline that any claim about confidence is measured against: one temperature, tuned on dev."""

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
"""Into which the stretch around the best coarse temperature is cut."""


def tune_temperature(
    predictor: TokenPredictor, dev: Sequence[Example], progress: Progress | None = None
) -> tuple[float, GroupedCalibration]:
    """Return the temperature at which the plain model's NLL on ``dev`` is least, averaged over groups, and its figures.

    The NLL is convex in 1/T, so that the least of a grid has the least of all between its neighbours: a coarse grid
    over 1/8..8, then a fine one there, whose steps are about 2%. Two passes over ``dev``.
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
    """Measure how sure and how right the plain model, the steered one, and the plain one at ``temperature`` are."""
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
