"""Temperature scaling: the baseline for claims about confidence, tuned on dev, without and with a profile."""

from collections.abc import Mapping, Sequence

from steering_profiles.evaluation.accuracy import TokenPredictor
from steering_profiles.evaluation.calibration import (
    CalibrationComparison,
    GroupedCalibration,
    calibrate_arm,
    calibrate_groups,
)
from steering_profiles.evaluation.tempered import compare_tempered
from steering_profiles.progress import Progress
from steering_profiles.steering import UNSTEERED, Steering
from steering_profiles.tasks.task import Example

_COARSE = tuple(2 ** (power / 4) for power in range(-12, 13))  # 1/8..8
_STEPS = 16
"""Number of steps of the fine grid around the best coarse temperature."""


def tune_temperature(
    predictor: TokenPredictor,
    dev: Sequence[Example],
    progress: Progress | None = None,
    *,
    steering: Steering = UNSTEERED,
) -> tuple[float, GroupedCalibration]:
    """Return the temperature that minimises the NLL on ``dev`` under ``steering``, and the calibration at it.

    The NLL is averaged over groups. It is convex in 1/T, so the minimum is between the neighbours of the best point of
    a grid. A coarse grid over 1/8..8 is searched first, then a fine one with steps of about 2% around its best point.
    This takes two passes over ``dev``.
    """
    found = _measured(predictor, dev, _COARSE, steering, progress)
    at = _COARSE.index(min(found, key=lambda temperature: found[temperature].balanced_nll))
    low, high = _COARSE[max(0, at - 1)], _COARSE[min(at + 1, len(_COARSE) - 1)]
    fine = [low * (high / low) ** (step / _STEPS) for step in range(_STEPS + 1)]
    found = _measured(predictor, dev, fine, steering, progress)
    return min(found.items(), key=lambda one: one[1].balanced_nll)


def compare_calibration(
    predictor: TokenPredictor,
    examples: Sequence[Example],
    steering: Steering,
    temperature: float,
    progress: Progress | None = None,
    *,
    profile_temperature: float | None = None,
) -> CalibrationComparison:
    """Measure the calibration of the unsteered model, the steered one, and the unsteered one at ``temperature``.

    With the ``profile_temperature`` that was tuned for the steered model, both are also compared at their temperatures.
    """
    plain = predictor.answers_at(examples, (1.0, temperature), progress=progress)
    baseline, tempered = plain[1.0], plain[temperature]
    of_profile = 1.0 if profile_temperature is None else profile_temperature
    steered = predictor.answers_at(examples, (1.0, of_profile), steering, progress)
    both = None
    if profile_temperature is not None:
        both = compare_tempered(examples, tempered, steered[profile_temperature], profile_temperature)
    return CalibrationComparison(
        baseline=calibrate_arm(baseline, baseline),
        profile=calibrate_arm(steered[1.0], baseline),
        tempered=calibrate_arm(tempered, baseline),
        temperature=temperature,
        both_tempered=both,
    )


def tune_and_compare(
    predictor: TokenPredictor,
    dev: Mapping[str, Sequence[Example]],
    asked: Mapping[str, Sequence[Example]],
    steering: Steering,
    progress: Progress | None = None,
) -> dict[str, CalibrationComparison]:
    """Compare the calibration on each set of prompts that is ``asked``, with both temperatures tuned for that set.

    They are tuned on the set of ``dev`` with the same name, such as ``4 shots``, or else on the first one.
    """
    tuned: dict[str, tuple[float, float]] = {}
    compared = {}
    for name, examples in asked.items():
        of = name if name in dev else next(iter(dev))
        if of not in tuned:
            plain, _ = tune_temperature(predictor, dev[of], progress)
            tuned[of] = plain, tune_temperature(predictor, dev[of], progress, steering=steering)[0]
        temperature, of_profile = tuned[of]
        compared[name] = compare_calibration(
            predictor, examples, steering, temperature, progress, profile_temperature=of_profile
        )
    return compared


def _measured(
    predictor: TokenPredictor,
    dev: Sequence[Example],
    temperatures: Sequence[float],
    steering: Steering,
    progress: Progress | None,
) -> dict[float, GroupedCalibration]:
    answers = predictor.answers_at(dev, temperatures, steering, progress)
    return {temperature: calibrate_groups(some) for temperature, some in answers.items()}
