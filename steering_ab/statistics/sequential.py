"""Intervals that may be looked at after every unit: confidence sequences for means and for differences of means.

The boundary is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences" (Annals of Statistics, 2024; arXiv:2103.06476), theorem 2.2:
a normal mixture over all effects. Its intervals hold at all times together, so an experiment may be ended whenever one
of them excludes zero, or for any other reason.

Asymptotic means that the variance is estimated. Where an arm has few successes an estimate can be far too small, so
outcomes with known bounds get one more unit at each bound, as in the interval of Agresti and Coull: with it the error
of the first kind stays below its level from ten units on, which tests simulate for rates from 1% to 98%.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from steering_ab.errors import StatisticsError

MIN_UNITS = 10
"""Units that an arm must have before anything is said about an outcome with known bounds."""
MIN_UNITS_UNBOUNDED = 50
"""The same for an outcome without, such as a latency, whose variance is estimated without help."""

_MOST_UNITS = 2**50


@dataclass(frozen=True)
class Bounds:
    """The least and the largest value that an outcome can have."""

    lower: float = 0.0
    upper: float = 1.0


@dataclass(frozen=True)
class Sample:
    """What the units of an arm say about a mean. A unit is what was assigned, so that units are independent."""

    units: int
    mean: float
    variance: float
    """Variance of one unit: ``units`` times the squared standard error of ``mean``."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """Return the sample of one value for each unit."""
        units = len(values)
        mean = math.fsum(values) / units if units else 0.0
        return cls(units, mean, math.fsum((value - mean) ** 2 for value in values) / units if units else 0.0)

    @classmethod
    def of_rate(cls, successes: int, units: int) -> "Sample":
        """Return the sample of ``units`` of which each succeeded or failed."""
        rate = successes / units if units else 0.0
        return cls(units, rate, rate * (1 - rate))


@dataclass(frozen=True)
class Design:
    """How sure intervals are, and the number of units at which they are narrowest. It is chosen before the start."""

    planned_units: float
    """Units of all compared arms together at which the intervals are narrowest; elsewhere they hold as well."""
    alpha: float = 0.05
    """Probability that any interval, at any time, misses the truth."""

    def critical(self, units: float) -> float:
        """Return the number of standard errors that an interval has on each side after ``units`` units."""
        log = -2 * math.log(self.alpha)
        # The choice of rho in the paper's section 3.5, which makes the boundary tight at the planned number.
        scaled = units / self.planned_units * (log + math.log(log) + 1)
        return math.sqrt(2 * (scaled + 1) / scaled * (0.5 * math.log1p(scaled) - math.log(self.alpha)))


Interval = tuple[float, float]


def mean_sequence(sample: Sample, design: Design, bounds: Bounds | None = None) -> Interval:
    """Return the interval of a mean: at all times together it holds with probability 1 - ``design.alpha``.

    Without ``bounds`` the outcome may have any value; with too few units the interval says nothing.
    """
    widest = (-math.inf, math.inf) if bounds is None else (bounds.lower, bounds.upper)
    if sample.units < _least(bounds):
        return widest
    width = design.critical(sample.units) * math.sqrt(_squared_error(sample, bounds))
    return max(widest[0], sample.mean - width), min(widest[1], sample.mean + width)


def difference_sequence(
    treatment: Sample, control: Sample, design: Design, bounds: Bounds | None = None, *, factor: float = 1.0
) -> Interval:
    """Return the interval of the mean of ``treatment`` minus ``factor`` times that of ``control``.

    At all times together it holds with probability 1 - ``design.alpha``. A factor of 1.1 asks whether the treatment is
    more than 10% above the control.
    """
    return pooled_difference([(treatment, control)], design, bounds, factor=factor)[1]


def pooled_difference(
    strata: Sequence[tuple[Sample, Sample]], design: Design, bounds: Bounds | None = None, *, factor: float = 1.0
) -> tuple[float | None, Interval]:
    """Return the difference over several periods with weights of their own, and its interval.

    Arms are compared within each period and the differences averaged by units, so that a change of weights while the
    outcome also changes with time cannot make a difference of its own (Simpson's paradox). A period in which an arm
    has too few units is left out. The difference is None if all are.
    """
    used = [pair for pair in strata if min(sample.units for sample in pair) >= _least(bounds)]
    total = sum(treatment.units + control.units for treatment, control in used)
    if not total:
        if bounds is None:
            return None, (-math.inf, math.inf)
        return None, (bounds.lower - factor * bounds.upper, bounds.upper - factor * bounds.lower)
    difference = squared = 0.0
    for treatment, control in used:
        share = (treatment.units + control.units) / total
        difference += share * (treatment.mean - factor * control.mean)
        squared += share**2 * (_squared_error(treatment, bounds) + factor**2 * _squared_error(control, bounds))
    width = design.critical(total) * math.sqrt(squared)
    return difference, (difference - width, difference + width)


def units_needed(
    effect: float,
    expected: tuple[Sample, Sample],
    bounds: Bounds | None = None,
    *,
    shares: tuple[float, float] = (0.5, 0.5),
    power: float = 0.8,
    alpha: float = 0.05,
    design: Design | None = None,
) -> int:
    """Return the units of two arms together after which an interval excludes zero with probability ``power``.

    It is the number for the last look alone; an experiment that is looked at earlier finds more often and ends earlier.

    Args:
        effect: The true difference of the means, not 0.
        expected: The mean and the variance to expect in each arm, whatever its number of units.
        bounds: Of the outcome; None if it has none.
        shares: Share of the units that each arm gets.
        power: Probability with which the difference is found.
        alpha: Probability of finding a difference that is not there.
        design: The design that is fixed already; without, the one that is narrowest at the returned number.

    Raises:
        StatisticsError: An argument is outside of what it can be; the message names it.
    """
    if not effect or not math.isfinite(effect):
        raise StatisticsError(f"effect is {effect}; it must be a finite number other than 0")
    if not 0 < power < 1 or not 0 < alpha < 1:
        raise StatisticsError(f"power is {power} and alpha is {alpha}; both must be between 0 and 1")
    if min(shares) <= 0:
        raise StatisticsError(f"shares are {shares}; both must be above 0")
    quantile, least = NormalDist().inv_cdf(power), _least(bounds)

    def finds(units: int) -> bool:
        counts = [math.floor(units * share / sum(shares)) for share in shares]
        if min(counts) < least:
            return False
        fixed = design or Design(planned_units=units, alpha=alpha)
        squared = sum(
            _squared_error(replace(sample, units=count), bounds) for sample, count in zip(expected, counts, strict=True)
        )
        return (fixed.critical(units) + quantile) * math.sqrt(squared) <= abs(effect)

    high = 2 * least
    while not finds(high):
        high *= 2
        if high > _MOST_UNITS:
            return _MOST_UNITS
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high


def _least(bounds: Bounds | None) -> int:
    return MIN_UNITS_UNBOUNDED if bounds is None else MIN_UNITS


def _squared_error(sample: Sample, bounds: Bounds | None) -> float:
    """Return the squared standard error of a mean, with one more unit at each bound."""
    variance = sample.variance
    if bounds is not None:
        count = sample.units + 2
        mean = (sample.units * sample.mean + bounds.lower + bounds.upper) / count
        squares = sample.units * (variance + sample.mean**2) + bounds.lower**2 + bounds.upper**2
        variance = max(0.0, squares / count - mean**2)
    return variance / sample.units
