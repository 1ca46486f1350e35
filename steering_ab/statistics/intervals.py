"""Confidence intervals, and the checks of the numbers that they are made of."""

import math
from dataclasses import dataclass

from steering_ab.errors import StatisticsError

CONFIDENCE = 0.95
"""Coverage of every interval unless another one is given."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, ends included."""

    low: float
    high: float


def require_level(name: str, value: float) -> float:
    """Return ``value`` if it is a probability strictly between 0 and 1.

    Raises:
        StatisticsError: it is not.
    """
    if not 0 < value < 1:  # NaN is not either
        raise StatisticsError(f"{name} is {value}; allowed: a number between 0 and 1, without the ends")
    return value


def normal_quantile(confidence: float) -> float:
    """Return z such that a standard normal variable is in -z..z with probability ``confidence``.

    Raises:
        StatisticsError: ``confidence`` is not between 0 and 1.
    """
    from scipy.stats import norm

    require_level("confidence", confidence)
    return float(norm.isf((1 - confidence) / 2))


def require_finite(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number.

    Raises:
        StatisticsError: it is not.
    """
    if not math.isfinite(value):
        raise StatisticsError(f"{name} is {value}; allowed: a finite number")
    return value
