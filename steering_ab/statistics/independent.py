"""Two arms with different units each, as in an experiment on live traffic, at a size that was fixed before."""

import math
from dataclasses import dataclass

from steering_ab.errors import StatisticsError
from steering_ab.statistics.intervals import CONFIDENCE, Interval, normal_quantile, require_finite, require_level


@dataclass(frozen=True)
class Moments:
    """Number, mean and sample variance (divided by count - 1) of the outcomes of an arm."""

    count: int
    mean: float
    variance: float


def mean_difference_interval(first: Moments, second: Moments, confidence: float = CONFIDENCE) -> Interval:
    """Return Welch's interval of the second mean minus the first (Welch 1947, Biometrika 34:28).

    Raises:
        StatisticsError: an arm has fewer than 2 outcomes.
    """
    from scipy.stats import t

    require_level("confidence", confidence)
    for moments in (first, second):
        if moments.count < 2:
            raise StatisticsError(f"count is {moments.count}; an interval of means needs at least 2 outcomes per arm")
    shares = [moments.variance / moments.count for moments in (first, second)]
    difference = second.mean - first.mean
    if sum(shares) == 0:
        return Interval(difference, difference)
    freedom = sum(shares) ** 2 / sum(
        share**2 / (moments.count - 1) for share, moments in zip(shares, (first, second), strict=True)
    )
    width = float(t.isf((1 - confidence) / 2, freedom)) * math.sqrt(sum(shares))
    return Interval(difference - width, difference + width)


def rate_difference_interval(
    successes: tuple[int, int], totals: tuple[int, int], confidence: float = CONFIDENCE
) -> Interval:
    """Return Newcombe's interval of the second rate minus the first (Newcombe 1998, Stat. Med. 17:873, method 10).

    Raises:
        StatisticsError: a total is less than 1, or a number of successes is not in 0..total.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    require_level("confidence", confidence)
    for count, total in zip(successes, totals, strict=True):
        if total < 1 or not 0 <= count <= total:
            raise StatisticsError(f"{count} successes of {total}; allowed: 0..total of at least 1")
    low, high = confint_proportions_2indep(
        successes[1], totals[1], successes[0], totals[0], method="newcomb", compare="diff", alpha=1 - confidence
    )
    return Interval(float(low), float(high))


def units_per_arm(difference: float, deviation: float, *, level: float = 0.05, power: float = 0.8) -> int:
    """Return the number of units per arm at which a two-sided test finds ``difference`` of means with ``power``.

    ``deviation`` is the standard deviation of an outcome; of a rate p it is at most ``sqrt(p (1 - p))``.

    Raises:
        StatisticsError: ``difference`` is 0, or a number is not in its range.
    """
    from scipy.stats import norm

    if require_finite("difference", difference) == 0:
        raise StatisticsError("difference is 0; no number of units shows it")
    if require_finite("deviation", deviation) < 0:
        raise StatisticsError(f"deviation is {deviation}; allowed: 0 or more")
    z = normal_quantile(1 - level) + float(norm.ppf(require_level("power", power)))
    return max(2, math.ceil(2 * (z * deviation / difference) ** 2))
