"""A sample ratio mismatch is found, and not found where there is none, however often it is looked for."""

import numpy as np
import pytest

from steering_ab.errors import StatisticsError
from steering_ab.statistics.sample_ratio import Period, sample_ratio

HALF = (0.5, 0.5)


def test_units_that_suit_the_weights_are_no_mismatch():
    assert sample_ratio([Period((5000, 5050), HALF)]).p_value == 1.0
    assert not sample_ratio([]).is_mismatch
    assert not sample_ratio([Period((0, 0), HALF)]).is_mismatch


def test_units_that_do_not_suit_the_weights_are_a_mismatch():
    assert sample_ratio([Period((5300, 4700), HALF)]).is_mismatch
    assert sample_ratio([Period((950_000, 50_000), (0.951, 0.049))]).is_mismatch
    assert sample_ratio([Period((100, 0), HALF)]).is_mismatch


def test_looking_after_every_batch_finds_no_mismatch_where_there_is_none():
    random, found = np.random.default_rng(0), 0
    for _ in range(300):
        counts = random.multinomial(50, (0.2, 0.3, 0.5), 50).cumsum(axis=0)
        found += any(sample_ratio([Period(tuple(map(int, row)), (0.2, 0.3, 0.5))]).p_value <= 0.05 for row in counts)
    assert found / 300 <= 0.05


def test_every_period_is_compared_with_its_own_weights():
    periods = [Period((9000, 1000), (0.9, 0.1)), Period((1000, 9000), (0.1, 0.9))]
    assert not sample_ratio(periods).is_mismatch
    assert sample_ratio([Period((10_000, 10_000), HALF), Period((10_000, 10_000), (0.9, 0.1))]).is_mismatch


def test_a_unit_in_an_arm_without_weight_is_a_mismatch():
    assert sample_ratio([Period((500, 1), (1.0, 0.0))]).is_mismatch
    assert not sample_ratio([Period((500, 0), (1.0, 0.0))]).is_mismatch


def test_weights_of_other_arms_are_an_error():
    with pytest.raises(StatisticsError, match="2 arms have 3 weights"):
        sample_ratio([Period((1, 2), (0.2, 0.3, 0.5))])
