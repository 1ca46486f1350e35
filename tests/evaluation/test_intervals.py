"""Confidence intervals of an accuracy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.evaluation import Accuracy

counts = st.integers(1, 2000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


def test_intervals_match_published_wilson_intervals():
    # Newcombe (1998), table I, Wilson without continuity correction.
    published = {(81, 263): (25.53, 36.62), (15, 148): (6.24, 16.05), (0, 20): (0.0, 16.11), (1, 29): (0.61, 17.18)}
    for (correct, total), bounds in published.items():
        assert Accuracy({"all": (correct, total)}).interval("all") == pytest.approx(bounds, abs=0.005)


@given(counts)
def test_interval_ends_are_the_shares_that_a_score_test_just_accepts(count: tuple[int, int]):
    correct, total = count
    share = correct / total
    for bound in Accuracy({"x": count}).interval("x"):
        p = bound / 100
        if 0 < p < 1:
            assert abs(share - p) / math.sqrt(p * (1 - p) / total) == pytest.approx(1.959964, rel=1e-6)
        else:
            assert p == share, "an end is 0% or 100% only where that is what was measured"


def test_prompts_are_pooled_unless_a_group_is_given():
    accuracy = Accuracy({"a": (3, 10), "b": (40, 40)})
    assert accuracy.interval() == Accuracy({"pooled": (43, 50)}).interval("pooled")


def test_the_interval_of_no_prompts_is_0_to_100():
    assert Accuracy({}).interval() == (0.0, 100.0)


def test_an_unknown_group_is_an_error():
    with pytest.raises(KeyError, match="b"):
        Accuracy({"a": (1, 2)}).interval("b")
