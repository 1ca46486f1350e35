"""Confidence sequences hold at every look, and the promised number of units has the promised power."""

import math

import numpy as np
import pytest

from steering_ab.errors import StatisticsError
from steering_ab.statistics.sequential import (
    MIN_UNITS,
    MIN_UNITS_UNBOUNDED,
    Bounds,
    Design,
    Sample,
    difference_sequence,
    mean_sequence,
    pooled_difference,
    units_needed,
)

RATE = Bounds()
LOOKS = 50


def rejections(
    rates: tuple[float, float],
    *,
    experiments: int,
    batch: int,
    share: float = 0.5,
    planned: float = 2000,
    looks: int = LOOKS,
    seed: int = 0,
) -> float:
    """The share of simulated experiments in which the difference of two rates ever excludes 0, at ``looks`` looks."""
    random, design, found = np.random.default_rng(seed), Design(planned), 0
    treated = random.binomial(batch, share, (experiments, looks))
    counts = np.stack([treated, batch - treated])
    successes = np.stack([random.binomial(count, rate) for count, rate in zip(counts, rates, strict=True)])
    counts, successes = counts.cumsum(axis=2), successes.cumsum(axis=2)
    for experiment in range(experiments):
        for look in range(looks):
            one, other = (
                Sample.of_rate(int(successes[arm, experiment, look]), int(counts[arm, experiment, look]))
                for arm in (0, 1)
            )
            low, high = difference_sequence(one, other, design, RATE)
            if not low <= 0 <= high:
                found += 1
                break
    return found / experiments


def test_looking_fifty_times_finds_nothing_where_nothing_is():
    assert rejections((0.5, 0.5), experiments=300, batch=40) <= 0.05


@pytest.mark.parametrize("rate", [0.01, 0.98])
def test_the_few_successes_of_an_extreme_rate_find_nothing_either(rate: float):
    # With the plain estimate of the variance a third of these experiments find something.
    assert rejections((rate, rate), experiments=200, batch=40, share=0.1) <= 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
@pytest.mark.parametrize(("batch", "share"), [(20, 0.5), (200, 0.5), (40, 0.1)])
def test_ten_thousand_experiments_without_an_effect_reject_in_at_most_five_percent(
    rate: float, batch: int, share: float
):
    assert rejections((rate, rate), experiments=10_000, batch=batch, share=share) <= 0.055


@pytest.mark.parametrize("control", [0.05, 0.45, 0.85])
@pytest.mark.parametrize(("power", "share"), [(0.8, 0.5), (0.9, 0.25)])
def test_an_effect_of_ten_points_is_found_as_often_as_promised(control: float, power: float, share: float):
    rates = (control + 0.1, control)
    expected = tuple(Sample(0, rate, rate * (1 - rate)) for rate in rates)
    promised = units_needed(0.1, (expected[0], expected[1]), RATE, shares=(share, 1 - share), power=power)
    found = rejections(rates, experiments=400, batch=math.ceil(promised / 10), share=share, planned=promised, looks=10)
    assert found >= power - 0.01


def test_units_that_are_needed_grow_with_what_is_asked_for():
    half = (Sample(0, 0.5, 0.25), Sample(0, 0.5, 0.25))
    needed = units_needed(0.1, half, RATE)
    assert 1400 < needed < 1700
    assert units_needed(0.05, half, RATE) == pytest.approx(4 * needed, rel=0.01)
    assert units_needed(0.1, half, RATE, power=0.95) > needed
    assert units_needed(0.1, half, RATE, alpha=0.01) > needed
    assert units_needed(0.1, half, RATE, shares=(0.1, 0.9)) > 2 * needed
    assert units_needed(0.1, half, RATE, design=Design(10 * needed)) > needed


def test_an_interval_of_a_mean_holds_at_every_look():
    random, design, missed = np.random.default_rng(1), Design(500), 0
    bounds = Bounds(-2.0, 6.0)
    for _ in range(200):
        values = random.beta(0.5, 1.5, 600) * 8 - 2
        for count in range(20, 601, 20):
            low, high = mean_sequence(Sample.of(list(values[:count])), design, bounds)
            if not low <= 0.0 <= high:
                missed += 1
                break
    assert missed / 200 <= 0.05


def test_intervals_are_narrowest_where_it_was_planned():
    critical = {units: Design(1000).critical(units) for units in (50, 1000, 100_000)}
    assert critical[1000] < critical[50]
    assert critical[1000] < critical[100_000]
    assert critical[1000] == min(Design(planned).critical(1000) for planned in (300, 700, 1000, 1500, 3000))


def test_too_few_units_say_nothing():
    design = Design(1000)
    assert mean_sequence(Sample.of_rate(3, MIN_UNITS - 1), design, RATE) == (0.0, 1.0)
    assert mean_sequence(Sample.of([1.0] * (MIN_UNITS_UNBOUNDED - 1)), design) == (-math.inf, math.inf)
    few, many = Sample.of_rate(0, MIN_UNITS - 1), Sample.of_rate(900, 1000)
    assert pooled_difference([(many, few)], design, RATE) == (None, (-1.0, 1.0))
    assert pooled_difference([], design) == (None, (-math.inf, math.inf))


def test_a_change_of_weights_while_the_rate_changes_makes_no_difference():
    # 90% of the treatment's units come from the time of the low rate, 10% of the control's.
    first = (Sample.of_rate(900, 9000), Sample.of_rate(100, 1000))
    second = (Sample.of_rate(500, 1000), Sample.of_rate(4500, 9000))
    pooled = difference_sequence(Sample.of_rate(1400, 10_000), Sample.of_rate(4600, 10_000), Design(5000), RATE)
    assert pooled[1] < -0.2
    difference, (low, high) = pooled_difference([first, second], Design(5000), RATE)
    assert difference == pytest.approx(0.0)
    assert low < 0 < high


def test_a_relative_limit_compares_with_a_multiple_of_the_control():
    slow, fast = Sample(5000, 1.30, 0.04), Sample(5000, 1.00, 0.04)
    assert difference_sequence(slow, fast, Design(5000), factor=1.1)[0] > 0
    assert difference_sequence(slow, fast, Design(5000), factor=1.5)[1] < 0


@pytest.mark.parametrize(
    ("change", "named"),
    [({"effect": 0.0}, "effect"), ({"power": 1.0}, "power"), ({"alpha": 0.0}, "alpha"), ({"shares": (0, 1)}, "shares")],
)
def test_a_number_that_makes_no_sense_is_named(change: dict[str, object], named: str):
    half = Sample(0, 0.5, 0.25)
    with pytest.raises(StatisticsError, match=named):
        units_needed(**({"effect": 0.1, "expected": (half, half), "bounds": RATE} | change))
