"""Paired scores: bootstrap and permutation test; means and rates of independent arms."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from steering_ab.errors import StatisticsError
from steering_ab.statistics.independent import (
    Moments,
    mean_difference_interval,
    rate_difference_interval,
    units_per_arm,
)
from steering_ab.statistics.scores import bootstrap_interval, permutation_test


@pytest.fixture
def differences() -> list[float]:
    return np.random.default_rng(1).normal(0.1, 0.5, 200).tolist()


def test_the_bootstrap_interval_is_close_to_that_of_the_t_test(differences):
    interval = bootstrap_interval(differences, seed=0)
    expected = ttest_1samp(differences, 0).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_the_same_seed_gives_the_same_interval_and_test(differences):
    assert bootstrap_interval(differences, seed=3) == bootstrap_interval(differences, seed=3)
    assert permutation_test(differences, seed=3) == permutation_test(differences, seed=3)


def test_equal_differences_give_an_interval_without_width():
    for values in ([0.0] * 40, [0.1] * 40, [2.5]):
        interval = bootstrap_interval(values, seed=0)
        assert interval.low == interval.high == pytest.approx(values[0])


def test_few_items_are_tested_exactly():
    assert permutation_test([1.0] * 5, seed=0) == pytest.approx(2 / 2**5)
    assert permutation_test([1.0, 0, 0, 0], seed=0) == pytest.approx(1)
    assert permutation_test([0.0] * 9, seed=0) == 1


def test_the_permutation_test_is_close_to_the_t_test(differences):
    assert permutation_test(differences, seed=0) == pytest.approx(ttest_1samp(differences, 0).pvalue, abs=0.01)


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [1.0, math.inf]])
def test_scores_that_are_no_numbers_are_refused(values):
    for statistic in (bootstrap_interval, permutation_test):
        with pytest.raises(StatisticsError, match="difference"):
            statistic(values, 0)


def test_the_difference_of_two_means_has_welchs_interval():
    generator = np.random.default_rng(2)
    arms = [generator.normal(1, 1, 30), generator.normal(1.5, 2, 50)]
    first, second = (Moments(len(arm), float(arm.mean()), float(arm.var(ddof=1))) for arm in arms)
    interval = mean_difference_interval(first, second)
    expected = ttest_ind(arms[1], arms[0], equal_var=False).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_the_difference_of_two_rates_has_newcombes_interval():
    interval = rate_difference_interval((48, 56), (80, 70))  # Newcombe 1998, example (a), turned
    assert (interval.low, interval.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_units_per_arm_are_those_of_the_textbook():
    assert units_per_arm(0.5, 1) == 63
    with pytest.raises(StatisticsError, match="difference is 0"):
        units_per_arm(0, 1)
    with pytest.raises(StatisticsError, match="at least 2 outcomes"):
        mean_difference_interval(Moments(1, 0, 0), Moments(5, 0, 1))
