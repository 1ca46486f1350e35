"""Which candidate for the settings of the final layer a fit chooses, and why not another."""

from dataclasses import replace

import pytest

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy
from steering_profiles.evaluation.tempered import PairedChange, TemperedChange
from steering_profiles.final_layer_fields import Gate
from steering_profiles.fitting import FinalLayerSettings
from steering_profiles.fitting.final_layer_candidates import (
    PLAIN,
    FinalLayerCandidate,
    MeasuredCandidate,
    OtherMeasurements,
    RejectedCandidate,
    best_rejected,
    choose_candidate,
    make_candidates,
)
from steering_profiles.fitting.gating import Score


def test_candidates_are_unique_and_start_with_the_plain_model():
    points = make_candidates(FinalLayerSettings(self_only_attention=(1.0,), lambdas=(0.5, -0.5)))
    assert points[0] == PLAIN
    assert len(points) == len(set(points)) == 2 * (2 * 2 + 1)
    assert all((point.source is None) == (point.intercept_scale == 0) for point in points)


def test_candidates_that_differ_slightly_have_different_names():
    """The names are the keys of results in the checkpoint."""
    points = [
        FinalLayerCandidate(0.5, 0.1, "mean"),
        FinalLayerCandidate(0.50000001, 0.1, "mean"),
        FinalLayerCandidate(0.5, 0.10000001, "mean"),
    ]
    points += [replace(points[0], positions="last"), replace(points[0], condition=Condition(from_position=1))]
    points += [FinalLayerCandidate(0.5, 0.0, None, Gate(low=0.1, high=high)) for high in (0.6, 0.60000001)]
    assert len({str(point) for point in points}) == len(points)


def change(nll: float = 0.0, accuracy: float = 0.0, half: float = 0.1) -> dict[str, dict[str, TemperedChange]]:
    """The changes of one group of a format, each with this interval."""
    return {"few": {"a": TemperedChange(100, 1.0, PairedChange(nll, half), 0.5, PairedChange(accuracy, half))}}


def measured(
    own: float,
    nll: float,
    right: int = 50,
    *,
    other: int = 50,
    nll_increase: float = 0.0,
    format_nll: float = 1.0,
    shots: int = 50,
    changes: dict[str, dict[str, TemperedChange]] | None = None,
) -> MeasuredCandidate:
    point = PLAIN if own == 0 else FinalLayerCandidate(own, 0.0, None)
    dev = score({"a": (right, 100), "b": (other, 100)}, nll)
    few = score({"a": (shots, 100)}, format_nll)
    return MeasuredCandidate(point, dev, OtherMeasurements({"few": few}, nll_increase, changes or {}))


def score(counts: dict[str, tuple[int, int]], tempered_nll: float) -> Score:
    """A score whose NLL at temperature 1 says the opposite of that at the tuned temperature."""
    return Score(Accuracy(counts), 9 - tempered_nll, 0.5, 0.9, tempered_nll)


CHOICES = {
    "the smallest NLL": ([measured(0.5, 0.8), measured(1.0, 0.7)], 1.0),
    "the smallest total change among equals": ([measured(0.75, 0.7), measured(0.5, 0.7), measured(1.0, 0.7)], 0.5),
    "the plain model if nothing is better": ([measured(0.5, 1.1), measured(1.0, 1.0)], 0.0),
    "not a loss of more than a point": ([measured(1.0, 0.5, 70, other=48), measured(0.5, 0.9)], 0.5),
    "a loss of one point": ([measured(1.0, 0.5, other=49), measured(0.5, 0.9)], 1.0),
    "not too large an NLL increase": (
        [measured(1.0, 0.5, nll_increase=0.011), measured(0.5, 0.9, nll_increase=0.01)],
        0.5,
    ),
    "not a higher NLL in another format": ([measured(1.0, 0.5, format_nll=1.01), measured(0.5, 0.9)], 0.5),
    "not a loss in another format": ([measured(1.0, 0.5, shots=48), measured(0.5, 0.9, shots=49)], 0.5),
    "not a group whose NLL is worse beyond its interval": (
        [measured(1.0, 0.5, changes=change(nll=0.11)), measured(0.5, 0.9, changes=change(nll=0.09))],
        0.5,
    ),
    "not a group whose accuracy is worse beyond its interval": (
        [measured(1.0, 0.5, changes=change(accuracy=-0.11)), measured(0.5, 0.9, changes=change(accuracy=-0.09))],
        0.5,
    ),
    "not a candidate that is worse on dev": ([replace(measured(1.0, 0.5), other=None), measured(0.5, 0.9)], 0.5),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_rule_chooses(case: str):
    points, expected = CHOICES[case]
    assert choose_candidate([measured(0, 1.0), *points], FinalLayerSettings()).candidate.self_only_attention == expected


REFUSALS = {
    "the NLL of other text rises by 1.10%, more than 1.00%": measured(1.0, 0.5, nll_increase=0.011),
    "b loses 2.0 points of accuracy": measured(1.0, 0.5, other=48),
    "the NLL on few of a rises by 0.110, more than its interval": measured(1.0, 0.5, changes=change(nll=0.11)),
    "few of a loses 11.0 points, more than its interval": measured(1.0, 0.5, changes=change(accuracy=-0.11)),
    "the NLL on few rises by 0.0100": measured(1.0, 0.5, format_nll=1.01),
    "few loses 2.0 points of accuracy": measured(1.0, 0.5, shots=48),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_the_best_on_dev_is_rejected_with_the_reason(reason: str):
    grid = [measured(0, 1.0), REFUSALS[reason], measured(0.5, 0.9)]
    assert best_rejected(grid, FinalLayerSettings()) == RejectedCandidate(grid[1], (reason,))
    assert best_rejected([grid[0], grid[2]], FinalLayerSettings()) is None


def test_the_nll_of_other_text_does_not_count_without_the_limit():
    grid = [measured(0, 1.0), measured(1.0, 0.5, nll_increase=0.5), measured(0.5, 0.9)]
    assert choose_candidate(grid, FinalLayerSettings(), limit_nll=False).candidate.self_only_attention == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"self_only_attention": (1.5,)}, r"self-only attention is 1.5; allowed: numbers in 0\.\.1"),
        ({"self_only_attention": (float("nan"),)}, "self-only attention is nan"),
        ({"lambdas": (float("inf"),)}, "lambda is inf"),
        ({"sources": ("median",)}, "intercept is median; allowed: regression, mean"),
        ({"positions": ("first",)}, "positions are first; allowed: all, last"),
        ({"positions": ()}, "at least one value"),
        ({"max_lost": -1.0}, "max lost is -1"),
        ({"max_nll_increase": float("nan")}, "max NLL increase is nan"),
        ({"lambdas": ()}, "at least one value"),
    ],
)
def test_invalid_settings_are_rejected(changes, message: str):
    with pytest.raises(ValueError, match=message):
        FinalLayerSettings(**changes)
