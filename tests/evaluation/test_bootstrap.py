"""Intervals of the relative change of a text's NLL."""

import numpy as np
import pytest

from steering_profiles.evaluation import TextPredictor, Window
from steering_profiles.evaluation.bootstrap import BLOCK, mean_interval, relative_change_interval
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED
from tests.builders import every_effect


def noisy(draw: np.random.Generator, change: float, windows: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """NLLs of windows of tokens, which differ much more among themselves than by the change."""
    before = [draw.exponential(2.0, size=160) for _ in range(windows)]
    return before, [one * (1 + change + draw.normal(0, 0.05, size=one.shape)) for one in before]


def test_an_interval_has_the_true_change_as_often_as_it_says():
    draw = np.random.default_rng(3)
    found = [relative_change_interval(*noisy(draw, 0.01)) for _ in range(150)]
    covered = [low <= 0.01 <= high for low, high in filter(None, found)]
    assert len(covered) == 150
    assert 0.88 <= np.mean(covered) <= 0.99


def test_an_interval_of_a_mean_has_it_as_often_as_it_says():
    draw = np.random.default_rng(5)
    found = [mean_interval([draw.exponential(0.3, size=160) for _ in range(6)]) for _ in range(150)]
    covered = [low <= 0.3 <= high for low, high in filter(None, found)]
    assert len(covered) == 150
    assert 0.86 <= np.mean(covered) <= 0.99


def test_a_mean_over_blocks_of_unequal_length_is_that_of_the_tokens():
    assert mean_interval([np.full(40, 0.5)] * 6) == (0.5, 0.5)


def test_what_both_have_in_common_does_not_widen_it():
    """The texts' own spread is twenty times the change: unpaired, no change could be told from 0."""
    low, high = relative_change_interval(*noisy(np.random.default_rng(0), 0.01)) or (0, 0)
    assert 0 < low < 0.01 < high < 0.02


def test_neighbouring_tokens_are_drawn_together():
    draw = np.random.default_rng(1)
    before = [np.full(960, 2.0)]
    shared = np.repeat(draw.normal(0, 0.2, size=960 // BLOCK), BLOCK)
    together = relative_change_interval(before, [before[0] + shared])
    apart = relative_change_interval(before, [before[0] + draw.permutation(shared)])
    assert together is not None
    assert apart is not None
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])


def test_a_short_text_has_none_and_an_unchanged_one_has_exactly_zero():
    assert relative_change_interval([np.ones(BLOCK * 7)], [np.ones(BLOCK * 7)]) is None
    assert relative_change_interval([np.ones(BLOCK * 8)], [np.ones(BLOCK * 8)]) == (0.0, 0.0)


def test_measured_texts_have_the_interval_of_their_tokens(tiny: LoadedModel):
    draw = np.random.default_rng(0)
    windows = [Window(tuple(draw.integers(0, 250, size=65).tolist()), 1) for _ in range(5)]
    with TextPredictor(tiny) as predictor:
        (effect,) = predictor.measure({"text": windows}, every_effect(tiny)["heads"]).texts
        before, after = (predictor.token_scores(windows, one).nll for one in (UNSTEERED, every_effect(tiny)["heads"]))
    split = [scores.double().numpy().reshape(5, 64) for scores in (before, after)]
    assert effect.interval == pytest.approx(relative_change_interval(list(split[0]), list(split[1])), rel=1e-9)
    assert effect.interval is not None
    assert effect.interval[0] < effect.nll_increase < effect.interval[1]
