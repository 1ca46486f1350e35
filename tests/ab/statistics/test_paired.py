"""Paired yes or no grades: the exact McNemar test and the interval of the difference."""

import itertools
import math

import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, chi2, multinomial

from steering_ab.errors import StatisticsError
from steering_ab.statistics.intervals import normal_quantile
from steering_ab.statistics.multiplicity import holm
from steering_ab.statistics.paired import PairedCounts, difference_interval, mcnemar
from steering_ab.statistics.proportions import wilson

TABLES = [(794, 86, 150, 570), (36, 1, 2, 11), (10, 0, 7, 3), (0, 3, 9, 0), (20, 5, 5, 20), (400, 0, 0, 0)]


def likelihood_interval_end(counts: PairedCounts, difference: float) -> float:
    """The score statistic by the slow way: the likeliest table under the difference is searched for."""
    n, lost, gained = counts.total, counts.only_first, counts.only_second

    def surprise(lost_rate: float) -> float:
        gained_rate, rest = lost_rate + difference, 1 - 2 * lost_rate - difference
        cells = ((lost, lost_rate), (gained, gained_rate), (n - lost - gained, rest))
        return -sum(count * math.log(max(rate, 1e-300)) for count, rate in cells)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    likeliest = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * likeliest + difference - difference**2) / n
    return (counts.difference - difference) / math.sqrt(variance)


@pytest.mark.parametrize("table", TABLES)
def test_the_ends_of_the_interval_are_where_the_score_statistic_of_the_likeliest_table_is_significant(table):
    counts = PairedCounts(*table)
    interval = difference_interval(counts, correction=0)
    z = normal_quantile(0.95)
    for end, expected in ((interval.low, z), (interval.high, -z)):
        if abs(end) < 1:
            assert likelihood_interval_end(counts, end) == pytest.approx(expected, rel=1e-3)


def test_the_interval_turns_with_the_arms():
    for both, first, second in itertools.product((0, 5), (0, 1, 4), (0, 2, 9)):
        counts, turned = PairedCounts(both, first, second, 1), PairedCounts(both, second, first, 1)
        interval, other = difference_interval(counts), difference_interval(turned)
        assert (interval.low, interval.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
        assert -1 <= interval.low <= counts.difference <= interval.high <= 1


def test_the_interval_has_a_width_where_the_arms_agree_on_every_item():
    interval = difference_interval(PairedCounts(300, 0, 0, 100), correction=0)
    assert interval.high == pytest.approx(normal_quantile(0.95) ** 2 / (400 + normal_quantile(0.95) ** 2))
    assert interval.low == pytest.approx(-interval.high)


@pytest.mark.parametrize("items", [1, 2, 3, 10])
def test_the_interval_of_few_items_is_wide(items):
    z2 = normal_quantile(0.95) ** 2
    agreed = difference_interval(PairedCounts(items, 0, 0, 0), correction=0)
    assert (agreed.low, agreed.high) == pytest.approx((-z2 / (items + z2), z2 / (items + z2)))
    gained = difference_interval(PairedCounts(0, 0, items, 0), correction=0)
    lost = difference_interval(PairedCounts(0, items, 0, 0), correction=0)
    assert (gained.low, gained.high) == pytest.approx((-lost.high, 1))
    assert gained.low == pytest.approx((items - z2) / (items + z2))
    assert lost.low == -1


def test_mcnemars_test_is_the_binomial_test_of_the_discordant_items():
    assert mcnemar(PairedCounts(1, 0, 15, 44)) == pytest.approx(6.1e-5, rel=1e-2)
    for first, second in itertools.product(range(6), range(6)):
        expected = binomtest(first, first + second).pvalue if first + second else 1
        assert mcnemar(PairedCounts(3, first, second, 1)) == pytest.approx(expected)


def test_pairs_are_counted():
    counts = PairedCounts.of([(True, True), (False, True), (False, True), (True, False), (False, False)])
    assert counts == PairedCounts(both=1, only_first=1, only_second=2, neither=1)
    assert counts.difference == pytest.approx(0.2)


def test_no_pairs_are_refused():
    with pytest.raises(StatisticsError, match="at least 1"):
        PairedCounts.of([])


def test_wilsons_interval_is_that_of_the_textbook():
    interval = wilson(8, 10)
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5).low == 0
    assert wilson(5, 5).high == 1
    assert wilson(2.5, 5).low == pytest.approx(1 - wilson(2.5, 5).high)


@pytest.mark.parametrize(("successes", "total"), [(1, 0), (3, 2), (-1, 2), (math.nan, 2)])
def test_impossible_numbers_of_successes_are_refused(successes, total):
    with pytest.raises(StatisticsError, match=r"successes is|total is"):
        wilson(successes, total)


@pytest.mark.parametrize("confidence", [0, 1, 1.5, math.nan])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(StatisticsError, match="confidence is"):
        wilson(1, 2, confidence)


def test_holms_method_multiplies_the_smallest_most():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([]) == ()
    assert holm([1.0]) == (1.0,)
    with pytest.raises(StatisticsError, match="p-value is 1"):
        holm([1.1])


@pytest.mark.parametrize("correction", [0, 0.5])
def test_the_interval_excludes_no_difference_about_where_the_score_test_rejects(correction):
    for first, second in itertools.product(range(0, 20, 3), range(0, 20, 3)):
        if first == second:
            continue
        interval = difference_interval(PairedCounts(50, first, second, 10), correction=correction)
        rejected = (abs(first - second) - correction) ** 2 / (first + second) > chi2.isf(0.05, 1)
        assert (interval.low > 0 or interval.high < 0) == rejected


@pytest.mark.parametrize("items", [2, 10, 40])
def test_the_interval_covers_the_truth_with_its_confidence_at_every_rate(items):
    tables = [(lost, gained) for lost in range(items + 1) for gained in range(items + 1 - lost)]
    intervals = [difference_interval(PairedCounts(items - lost - gained, lost, gained, 0)) for lost, gained in tables]
    rates = (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    for lost, gained in itertools.product(rates, rates):
        if lost + gained < 1:
            counts = [(one, other, items - one - other) for one, other in tables]
            chances = multinomial.pmf(counts, items, (lost, gained, 1 - lost - gained))
            covers = [interval.low <= gained - lost <= interval.high for interval in intervals]
            assert chances[covers].sum() >= 0.95, (lost, gained)
