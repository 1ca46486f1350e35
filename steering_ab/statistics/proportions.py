"""Intervals of a single proportion."""

from steering_ab.errors import StatisticsError
from steering_ab.statistics.intervals import CONFIDENCE, Interval, require_level


def wilson(successes: float, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a proportion (Wilson 1927, JASA 22:209).

    ``successes`` need not be an integer: it may be the sum of the mean grades of ``total`` items of which each was
    answered several times. The interval is then conservative, since means vary less than single answers.

    Raises:
        StatisticsError: ``total`` is less than 1, or ``successes`` is not in 0..total.
    """
    from statsmodels.stats.proportion import proportion_confint

    require_level("confidence", confidence)
    if total < 1:
        raise StatisticsError(f"total is {total}; a proportion needs at least 1 observation")
    if not 0 <= successes <= total:
        raise StatisticsError(f"successes is {successes}; allowed: 0..{total}, the total")
    low, high = proportion_confint(successes, total, alpha=1 - confidence, method="wilson")
    return Interval(max(0.0, float(low)), min(1.0, float(high)))
