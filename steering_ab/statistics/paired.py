"""Two arms with a yes or no each on the same items: exact McNemar test and the interval of the difference."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from steering_ab.errors import StatisticsError
from steering_ab.statistics.intervals import CONFIDENCE, Interval, normal_quantile

_LARGE = 1e6  # square of a score that no level reaches


@dataclass(frozen=True)
class PairedCounts:
    """Numbers of items on which two arms are right.

    Raises:
        StatisticsError: a number is negative, or there is no item.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    def __post_init__(self) -> None:
        for name in ("both", "only_first", "only_second", "neither"):
            if getattr(self, name) < 0:
                raise StatisticsError(f"{name} is {getattr(self, name)}; allowed: 0 or more")
        if self.total < 1:
            raise StatisticsError("there are 0 pairs; a comparison needs at least 1")

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> "PairedCounts":
        """Count ``pairs`` of grades, the first arm's and the second arm's."""
        counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for first, second in pairs:
            counts[bool(first), bool(second)] += 1
        return cls(*counts.values())

    @property
    def total(self) -> int:
        """Number of items."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def discordant(self) -> int:
        """Number of items on which exactly one arm is right."""
        return self.only_first + self.only_second

    @property
    def difference(self) -> float:
        """Rate of the second arm minus that of the first."""
        return (self.only_second - self.only_first) / self.total


def mcnemar(counts: PairedCounts) -> float:
    """Return the two-sided p-value of the exact McNemar test (McNemar 1947, Psychometrika 12:153).

    It is the binomial test of whether the discordant items favour both arms alike; 1 if there are none.
    """
    from statsmodels.stats.contingency_tables import mcnemar as of_table

    if not counts.discordant:
        return 1.0
    table = [[counts.both, counts.only_first], [counts.only_second, counts.neither]]
    return min(1.0, float(of_table(table, exact=True).pvalue))


def difference_interval(counts: PairedCounts, confidence: float = CONFIDENCE, *, correction: float = 0.5) -> Interval:
    """Return Tango's score interval of the second rate minus the first (Tango 1998, Stat. Med. 17:891).

    Unlike Wald's it has a width where no item is discordant, and it stays in -1..1. ``correction``, in items, is taken
    off the distance from the hypothesis, as Yates does: a score of whole items is not continuous, and without it the
    interval covers 93% at some rates instead of 95%.
    """
    from scipy.optimize import brentq

    z = normal_quantile(confidence)
    estimate = counts.difference

    def excess(difference: float) -> float:
        return (
            min(_score(counts, difference, correction) ** 2, _LARGE) - z**2
        )  # the solver interpolates, which infinity breaks

    # The square of the score grows from 0 at the estimate to more than z² at -1 and 1, unless the estimate is there.
    low = -1.0 if estimate == -1 else brentq(excess, -1.0, estimate, xtol=1e-12)
    high = 1.0 if estimate == 1 else brentq(excess, estimate, 1.0, xtol=1e-12)
    return Interval(float(low), float(high))


def _score(counts: PairedCounts, difference: float, correction: float) -> float:
    """Return the score statistic of the hypothesis that the rates differ by ``difference``, without its sign."""
    n, gained, lost = counts.total, counts.only_second, counts.only_first
    distance = abs(gained - lost - n * difference) - correction
    if distance <= 0:
        return 0.0
    # The likeliest rate of lost items under the hypothesis: a root of a x² + b x + c, from Tango's equation.
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    lost_rate = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * lost_rate + difference * (1 - difference))
    return distance / math.sqrt(variance) if variance > 1e-12 else math.inf
