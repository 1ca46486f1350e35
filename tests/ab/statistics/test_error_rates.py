"""Simulated comparisons: tests reject as rarely, and find as often, as they promise."""

import numpy as np
import pytest
from numpy.typing import NDArray

from steering_ab.statistics.paired import PairedCounts, difference_interval, mcnemar
from steering_ab.statistics.power import (
    detectable_rate,
    detectable_score,
    items_for_rates,
    items_for_scores,
    mcnemar_power,
)
from steering_ab.statistics.scores import bootstrap_interval, permutation_test

SIMULATED = [
    pytest.param(2_000, id="2,000"),
    pytest.param(10_000, id="10,000", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
]
"""Numbers of simulated experiments."""


def noise(rate: float, simulated: int) -> float:
    """Three standard errors of a rate of the simulated experiments."""
    return 3 * float(np.sqrt(rate * (1 - rate) / simulated))


def tables(simulated: int, items: int, lost: float, gained: float, *, seed: int) -> NDArray[np.int64]:
    """Items that both arms, only the first, only the second and neither got right, in each experiment."""
    rest = 1 - lost - gained
    return np.random.default_rng(seed).multinomial(items, [rest / 2, lost, gained, rest / 2], simulated)


def rate_of(found: NDArray[np.int64], question: object) -> float:
    """Share of experiments for which ``question`` is true; it depends on the discordant items alone."""
    total = int(found[0].sum())
    kinds, numbers = np.unique(found[:, 1:3], axis=0, return_counts=True)
    answers = [question(PairedCounts(total - int(lost + gained), int(lost), int(gained), 0)) for lost, gained in kinds]
    return float((np.array(answers) * numbers).sum() / numbers.sum())


@pytest.mark.parametrize("simulated", SIMULATED)
@pytest.mark.parametrize(("items", "lost"), [(400, 0.05), (60, 0.1), (100, 0.25)])
def test_without_an_effect_the_exact_test_rejects_at_most_as_often_as_its_level(simulated, items, lost):
    found = tables(simulated, items, lost, lost, seed=1)
    assert rate_of(found, lambda counts: mcnemar(counts) <= 0.05) <= 0.05 + noise(0.05, simulated) / 3


@pytest.mark.parametrize("simulated", SIMULATED)
@pytest.mark.parametrize(
    ("items", "lost", "gained"), [(400, 0.02, 0.12), (400, 0, 0.01), (60, 0.1, 0.1), (30, 0.3, 0.1)]
)
def test_the_interval_of_the_difference_covers_the_truth_as_often_as_it_promises(simulated, items, lost, gained):
    found = tables(simulated, items, lost, gained, seed=2)

    def covers(counts: PairedCounts) -> bool:
        interval = difference_interval(counts)
        return interval.low <= gained - lost <= interval.high

    assert rate_of(found, covers) >= 0.95 - noise(0.05, simulated)


@pytest.mark.parametrize("simulated", SIMULATED)
@pytest.mark.parametrize(("difference", "discordant"), [(0.1, 0.2), (0.1, 0.1), (0.05, 0.3), (-0.1, 0.15)])
def test_with_the_promised_number_of_items_the_power_is_at_least_the_promised_one(simulated, difference, discordant):
    items = items_for_rates(difference, discordant)
    assert items is not None
    found = tables(simulated, items, (discordant - difference) / 2, (discordant + difference) / 2, seed=3)
    power = rate_of(found, lambda counts: mcnemar(counts) <= 0.05)
    assert power >= 0.8 - noise(0.8, simulated)
    assert power == pytest.approx(mcnemar_power(items, discordant, difference), abs=noise(0.8, simulated))


def test_the_promised_number_of_items_is_the_smallest():
    items = items_for_rates(0.1, 0.2)
    assert items is not None
    assert mcnemar_power(items, 0.2, 0.1) >= 0.8 > mcnemar_power(items - 1, 0.2, 0.1)


def test_the_detectable_difference_is_one_that_the_items_suffice_for():
    for items, discordant in ((400, 0.1), (60, 0.0), (168, 0.2)):
        difference = detectable_rate(items, discordant)
        assert difference is not None
        assert mcnemar_power(items, max(discordant, difference), difference) >= 0.8
    assert detectable_rate(168, 0.2) == pytest.approx(0.1, abs=0.001)
    assert detectable_rate(1, 0.0) is None


@pytest.mark.parametrize("simulated", [pytest.param(150, id="150"), SIMULATED[1]])
def test_tests_of_scores_reject_and_find_as_often_as_they_promise(simulated):
    generator = np.random.default_rng(4)
    items = items_for_scores(0.1, 0.4)
    assert items is not None
    assert detectable_score(items, 0.4) == pytest.approx(0.1, abs=0.001)
    without = generator.exponential(0.4, (simulated, items)) - 0.4  # as skewed as differences of lengths may be
    with_effect = generator.normal(0.1, 0.4, (simulated, items))
    rejected = np.mean([permutation_test(row.tolist(), 0) <= 0.05 for row in without])
    power = np.mean([permutation_test(row.tolist(), 0) <= 0.05 for row in with_effect])
    assert rejected <= 0.05 + 0.01 + noise(0.05, simulated)  # symmetric differences are what the test is exact for
    assert power >= 0.8 - noise(0.8, simulated)


@pytest.mark.parametrize("simulated", [pytest.param(150, id="150"), SIMULATED[1]])
def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_promises(simulated):
    rows = np.random.default_rng(5).choice([-0.5, 0.0, 0.0, 0.0, 0.5, 1.0], (simulated, 100))
    intervals = [bootstrap_interval(row.tolist(), 0) for row in rows]
    covered = np.mean([interval.low <= 1 / 6 <= interval.high for interval in intervals])
    assert covered >= 0.94 - noise(0.06, simulated)
