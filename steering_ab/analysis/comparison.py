"""The comparison of two arms by one grader, on all items or on those with a tag."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from steering_ab.statistics.intervals import CONFIDENCE, Interval
from steering_ab.statistics.multiplicity import holm
from steering_ab.statistics.paired import PairedCounts, difference_interval, mcnemar
from steering_ab.statistics.power import LEVEL, detectable_rate, detectable_score, items_for_rates, items_for_scores
from steering_ab.statistics.scores import bootstrap_interval, permutation_test

Verdict = Literal["higher", "lower", "not shown"]

TANGO = "Tango's score interval with a correction of half an item"
BOOTSTRAP = "BCa bootstrap interval over items"
MCNEMAR = "exact McNemar test"
SIGN = "exact sign test of wins and losses"
PERMUTATION = "sign-flip permutation test over items"


@dataclass(frozen=True)
class PairComparison:
    """How the grades of ``arm`` differ from those of ``reference`` on the same items."""

    grader: str
    arm: str
    reference: str
    tag: str | None
    """None for all items."""
    items: int
    difference: float
    """Mean grade of ``arm`` minus that of ``reference``; for a judge the share of wins minus that of losses."""
    interval: Interval
    interval_method: str
    p_value: float
    test: str
    wins: int
    ties: int
    losses: int
    is_rate: bool
    """Whether each item's difference is -1, 0 or 1."""
    deviation: float
    """Standard deviation of the items' differences."""
    detectable: float | None
    """Smallest difference that a test on as many items finds with a power of 80%; None if none."""
    adjusted_p: float | None = None
    """The p-value adjusted by Holm's method, where several comparisons are made at once."""
    disagreements: int | None = None
    """Number of pairs on which the judge changed its mind with the order; None if there is no judge."""

    @property
    def p(self) -> float:
        """The adjusted p-value where there is one, else the plain one."""
        return self.p_value if self.adjusted_p is None else self.adjusted_p

    @property
    def has_spread(self) -> bool:
        """Whether there is anything to estimate the interval of scores from: differences that are not all the same."""
        return self.is_rate or self.deviation > 0

    @property
    def verdict(self) -> Verdict:
        """What the test shows at the level of 5%."""
        if self.p > LEVEL or self.difference == 0:
            return "not shown"
        return "higher" if self.difference > 0 else "lower"

    def items_needed(self, difference: float) -> int | None:
        """Return the number of items on which a test finds ``difference`` with a power of 80%; None if not known."""
        if self.is_rate:
            if abs(difference) > 1:
                return None
            return items_for_rates(difference, (self.wins + self.losses) / self.items)
        return items_for_scores(difference, self.deviation)


def compare(
    grader: str,
    arm: str,
    reference: str,
    differences: Sequence[float],
    *,
    bounded: bool,
    judged: bool = False,
    tag: str | None = None,
    seed: int = 0,
    disagreements: int | None = None,
) -> PairComparison:
    """Return the comparison for the items' ``differences``, which are not empty.

    ``bounded`` says that grades are yes or no, so that a difference of every item is -1, 0 or 1 unless items were
    answered several times.

    Raises:
        StatisticsError: there is no difference, or one is not finite.
    """
    wins, losses = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
    items = len(differences)
    mean = math.fsum(differences) / items if items else 0.0
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in differences) / (items - 1)) if items > 1 else 0.0
    is_rate = bounded and all(each in (-1, 0, 1) for each in differences)
    if is_rate:
        counts = PairedCounts(items - wins - losses, losses, wins, 0)
        interval, p_value = difference_interval(counts), mcnemar(counts)
        detectable = detectable_rate(items, (wins + losses) / items)
    else:
        interval, p_value = bootstrap_interval(differences, seed), permutation_test(differences, seed)
        detectable = detectable_score(items, deviation)
    return PairComparison(
        grader=grader,
        arm=arm,
        reference=reference,
        tag=tag,
        items=items,
        difference=mean,
        interval=interval,
        interval_method=TANGO if is_rate else BOOTSTRAP,
        p_value=p_value,
        test=(SIGN if judged else MCNEMAR) if is_rate else PERMUTATION,
        wins=wins,
        ties=items - wins - losses,
        losses=losses,
        is_rate=is_rate,
        deviation=deviation,
        detectable=detectable,
        disagreements=disagreements,
    )


def corrected(comparisons: Sequence[PairComparison]) -> tuple[PairComparison, ...]:
    """Return ``comparisons`` with p-values adjusted by Holm's method; a single one is not adjusted."""
    if len(comparisons) < 2:
        return tuple(comparisons)
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return tuple(replace(each, adjusted_p=p) for each, p in zip(comparisons, adjusted, strict=True))


def mean_differences(
    values: Mapping[str, Mapping[str, float]], arm: str, reference: str, items: Sequence[str]
) -> list[float]:
    """Return the difference of each of ``items`` that both arms have a grade for."""
    both = (item for item in items if arm in values.get(item, {}) and reference in values[item])
    return [values[item][arm] - values[item][reference] for item in both]


def confidence_text() -> str:
    """Return the coverage of intervals as text: ``95%``."""
    return f"{CONFIDENCE:.0%}"
