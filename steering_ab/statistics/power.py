"""What a paired design can show: its power, the smallest difference it detects, and the items that one takes."""

import math
from collections.abc import Callable

from steering_ab.errors import StatisticsError
from steering_ab.statistics.intervals import require_finite, require_level

LEVEL = 0.05
"""Level of the two-sided tests."""
POWER = 0.8
"""Probability with which a difference is to be found."""
MOST_ITEMS = 10_000_000

_SPREAD = 9  # standard deviations of the number of discordant items that are summed over
_AHEAD = 12  # exact power is not quite monotone in the number of items; so many more must reach the power too


def mcnemar_power(items: int, discordant: float, difference: float, level: float = LEVEL) -> float:
    """Return the power of the exact McNemar test, summed over the number of discordant items.

    Args:
        items: Number of items.
        discordant: Share of items on which exactly one arm is right, 0..1.
        difference: True difference of the rates; its size is at most ``discordant``.
        level: Level of the two-sided test.

    Raises:
        StatisticsError: a number is not in its range.
    """
    import numpy as np
    from scipy.stats import binom

    _require_rates(discordant, difference)
    require_level("level", level)
    if items < 1 or discordant == 0:
        return 0.0
    centre, spread = items * discordant, _SPREAD * math.sqrt(items * discordant * (1 - discordant)) + _SPREAD
    numbers = np.arange(max(1, math.floor(centre - spread)), min(items, math.ceil(centre + spread)) + 1)
    # The largest number of discordant items for the loser at which the test rejects; -1 where none is.
    critical = binom.ppf(level / 2, numbers, 0.5).astype(np.int64)
    critical -= binom.cdf(critical, numbers, 0.5) > level / 2
    share = (1 + abs(difference) / discordant) / 2
    rejects = binom.cdf(critical, numbers, 1 - share) + binom.cdf(critical, numbers, share)
    rejects = np.where(critical < 0, 0.0, rejects)
    return float((binom.pmf(numbers, items, discordant) * rejects).sum())


def items_for_rates(difference: float, discordant: float, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """Return the items from which on the exact McNemar test finds ``difference`` with ``power``.

    A difference needs at least as many discordant items, so ``discordant`` counts as at least its size. None if more
    than ``MOST_ITEMS`` items are needed.

    Raises:
        StatisticsError: ``difference`` is 0, or a number is not in its range.
    """
    if require_finite("difference", difference) == 0:
        raise StatisticsError("difference is 0; no number of items shows it")
    share = max(discordant, abs(difference))
    _require_rates(share, difference)
    require_level("power", power)

    def enough(items: int) -> bool:
        return mcnemar_power(items, share, difference, level) >= power

    high = 8
    while not enough(high):
        high *= 2
        if high > MOST_ITEMS:
            return None
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    while True:
        lacking = next((more for more in range(_AHEAD, 0, -1) if not enough(high + more)), 0)
        if not lacking:
            return high
        high += lacking + 1


def detectable_rate(items: int, discordant: float, *, level: float = LEVEL, power: float = POWER) -> float | None:
    """Return the smallest difference of rates that the exact McNemar test finds on ``items`` with ``power``.

    None if it finds no difference, however large. See :func:`items_for_rates` on ``discordant``.

    Raises:
        StatisticsError: a number is not in its range.
    """
    _require_rates(discordant, 0)
    require_level("power", power)

    def enough(difference: float) -> bool:
        return mcnemar_power(items, max(discordant, difference), difference, level) >= power

    return _smallest(enough)


def items_for_scores(difference: float, deviation: float, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """Return the items on which a paired test of scores finds a mean difference with ``power``.

    ``deviation`` is the standard deviation of the items' differences. The number is that of the t-test, which the
    permutation test follows closely. None if more than ``MOST_ITEMS`` items are needed, or the deviation is 0.

    Raises:
        StatisticsError: ``difference`` is 0, or a number is not in its range.
    """
    if require_finite("difference", difference) == 0:
        raise StatisticsError("difference is 0; no number of items shows it")
    _require_deviation(deviation)
    require_level("power", power)
    if deviation == 0:
        return None
    high = 4
    while _t_power(high, difference, deviation, level) < power:
        high *= 2
        if high > MOST_ITEMS:
            return None
    low = 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _t_power(middle, difference, deviation, level) >= power else (middle + 1, high)
    return high


def detectable_score(items: int, deviation: float, *, level: float = LEVEL, power: float = POWER) -> float | None:
    """Return the smallest mean difference of scores that a paired test finds on ``items`` with ``power``.

    None if there are fewer than 2 items, or ``deviation`` is 0, so that nothing is known of the spread.

    Raises:
        StatisticsError: a number is not in its range.
    """
    from statsmodels.stats.power import TTestPower

    _require_deviation(deviation)
    require_level("power", power)
    require_level("level", level)
    if items < 2 or deviation == 0:
        return None
    standardised = TTestPower().solve_power(nobs=items, alpha=level, power=power, alternative="two-sided")
    return float(standardised) * deviation


def _t_power(items: int, difference: float, deviation: float, level: float) -> float:
    from statsmodels.stats.power import TTestPower

    require_level("level", level)
    return float(TTestPower().power(abs(difference) / deviation, items, level))


def _smallest(enough: Callable[[float], bool]) -> float | None:
    """Return the smallest number in 0..1 for which ``enough`` is true, to four decimals, rounded up."""
    steps = 10_000
    if not enough(1.0):
        return None
    low, high = 1, steps
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle / steps) else (middle + 1, high)
    return high / steps


def _require_rates(discordant: float, difference: float) -> None:
    if not 0 <= discordant <= 1:
        raise StatisticsError(f"discordant is {discordant}; allowed: 0..1")
    if not abs(difference) <= discordant:
        raise StatisticsError(f"difference is {difference}; allowed: at most discordant, {discordant}")


def _require_deviation(deviation: float) -> None:
    if require_finite("deviation", deviation) < 0:
        raise StatisticsError(f"deviation is {deviation}; allowed: 0 or more")
