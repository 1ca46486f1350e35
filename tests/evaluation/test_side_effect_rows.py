"""The rows of a table of side effects."""

from dataclasses import replace

import pytest

from steering_profiles.evaluation import SideEffects, TextEffect
from steering_profiles.evaluation.side_effect_rows import side_effect_rows

TEXT = TextEffect("prose", 100, 2.0, 2.0, 1.0, interval=(0.0, 0.0))


def nll_rows(*changes: tuple[float, tuple[float, float] | None]) -> list[tuple[str, str]]:
    """The order of texts whose NLL changes so, each named by its change, and what is said of it."""
    texts = [
        replace(TEXT, name=f"{change:+.2f}", nll_after=2.0 * (1 + change), interval=interval)
        for change, interval in changes
    ]
    rows = side_effect_rows(SideEffects(tuple(texts)))
    return [(row.of, row.verdict) for row in rows if row.measure == "NLL per token"]


def test_what_is_worse_by_more_than_its_interval_is_first_and_what_is_better_last():
    rows = nll_rows(
        *[(-0.03, (-0.04, -0.01)), (0.05, (-0.01, 0.1)), (0.01, (0.005, 0.02)), (-0.02, (-0.1, 0.1))],
        *[(0.02, (0.01, 0.03)), (0.0, (0.0, 0.0)), (-0.01, (-0.02, -0.001))],
    )
    assert rows == [
        *[("+0.02", "worse"), ("+0.01", "worse"), ("+0.05", ""), ("+0.00", ""), ("-0.02", "")],
        *[("-0.01", "better"), ("-0.03", "better")],
    ]


def test_a_change_without_an_interval_cannot_be_told_from_none():
    assert nll_rows((0.5, None)) == [("+0.50", "")]


def test_a_share_that_falls_is_worse():
    text = replace(TEXT, correct=(0.5, 0.4), correct_interval=(-0.15, -0.05))
    row = next(row for row in side_effect_rows(SideEffects((text,))) if row.measure == "next token right")
    assert (row.verdict, row.harm) == ("worse", pytest.approx(0.1))
    assert (row.shown(row.before), row.change_shown) == ("50.0%", "-10.00 points")
    assert row.interval_shown == "-15.00..-5.00 points"


def test_what_has_no_better_and_worse_is_at_the_end():
    text = replace(TEXT, nll_after=1.0, interval=(-0.6, -0.4), divergence=0.5, divergence_interval=(0.4, 0.6))
    rows = side_effect_rows(SideEffects((text,)))
    assert [row.measure for row in rows] == ["NLL per token", "KL divergence per token", "same likeliest next token"]
    assert [row.verdict for row in rows] == ["better", "", ""]
    assert (rows[1].shown(rows[1].before), rows[1].change_shown, rows[1].interval_shown) == ("", "", "0.4000..0.6000")
