"""Sample ratio mismatch: do the arms have the numbers of units that their weights say?

If not, units are lost or doubled in one of the arms, and every other figure of the experiment is in doubt. The test is
that of Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022; arXiv:2011.03567): a
Bayes factor of a Dirichlet-multinomial against the weights, which may be looked at after every unit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steering_ab.errors import StatisticsError

LEVEL = 0.001
"""Probability with which arms that have the right weights are ever reported."""

_CONCENTRATIONS = (100.0, 10_000.0)
"""Alternatives are thought to be within about five points of the weights, or within half a point, with equal odds."""


@dataclass(frozen=True)
class Period:
    """The units of each arm that were first seen while the arms had these weights."""

    units: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class SampleRatio:
    """The evidence against the weights."""

    evidence: float
    """Bayes factor; under the right weights it ever exceeds 1/p with probability at most p. At most 1e300."""

    @property
    def p_value(self) -> float:
        """An always-valid p-value."""
        return min(1.0, 1 / self.evidence) if self.evidence else 1.0

    @property
    def is_mismatch(self) -> bool:
        """Whether the numbers do not suit the weights."""
        return self.p_value <= LEVEL


def sample_ratio(periods: Sequence[Period]) -> SampleRatio:
    """Return the evidence that units are not divided as the weights of each period say.

    Raises:
        StatisticsError: a period has another number of weights than of units.
    """
    log = sum(_log_bayes_factor(period) for period in periods)
    return SampleRatio(math.exp(min(max(log, -690.0), 690.0)))


def _log_bayes_factor(period: Period) -> float:
    if len(period.units) != len(period.weights):
        raise StatisticsError(f"{len(period.units)} arms have {len(period.weights)} weights")
    total = sum(period.weights)
    pairs = [(units, weight / total) for units, weight in zip(period.units, period.weights, strict=True)]
    if any(units and not weight for units, weight in pairs):
        return math.inf  # a unit in an arm that takes none
    pairs = [(units, weight) for units, weight in pairs if weight]
    logs = [_against(pairs, concentration) for concentration in _CONCENTRATIONS]
    highest = max(logs)
    return highest + math.log(math.fsum(math.exp(log - highest) for log in logs) / len(logs))


def _against(pairs: Sequence[tuple[int, float]], concentration: float) -> float:
    """Return the log Bayes factor of a Dirichlet prior around the weights against the weights themselves."""
    count = sum(units for units, _ in pairs)
    log = math.lgamma(concentration) - math.lgamma(concentration + count)
    for units, weight in pairs:
        prior = concentration * weight
        log += math.lgamma(prior + units) - math.lgamma(prior) - units * math.log(weight)
    return log
