"""The part of a report on a gate: the same settings without and with it."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.final_layer_fields import FinalLayer, Gate
from steering_profiles.fitting.final_layer import WithoutGate
from steering_profiles.reports import Report, render_html, render_markdown
from steering_profiles.reports.gate import (
    GateComparison,
    gate_comparison,
    gate_sentences,
    gate_task_table,
    gate_texts_table,
)
from steering_profiles.reports.plots.gate import gate_plot
from steering_profiles.reports.plots.style import BLUE, ORANGE, to_svg
from tests.reports.reading import markdown_tables
from tests.reports.samples import profile
from tests.reports.test_calibration import compared, four
from tests.reports.test_plots import texts

WITH_GATE = compared(four(3, 0.7, 0.5))
WITHOUT = compared(four(1, 0.9, 0.5)).profile
OPENED = SideEffects((TextEffect("prose", 100, 2.0, 2.06, 0.8), TextEffect("code", 50, 1.0, 1.01, 0.9)))
GATED = SideEffects((TextEffect("prose", 100, 2.0, 1.998, 0.95), TextEffect("code", 50, 1.0, 1.004, 0.97)))


@pytest.fixture
def comparison() -> GateComparison:
    found = gate_comparison(WithoutGate(WITHOUT, OPENED), WITH_GATE, GATED)
    assert found is not None
    return found


def test_the_task_is_shown_for_each_arm_for_all_prompts_and_each_group(comparison: GateComparison):
    rows = [[cell.text for cell in row] for row in gate_task_table(comparison).rows]
    assert [row[0] for row in rows[::3]] == ["all", "a", "b"]
    assert [row[2:4] for row in rows[:3]] == [
        ["baseline", "50.0"],
        ["without gate", "25.0"],
        ["with gate", "75.0"],
    ]
    assert rows[2][5] == f"{WITH_GATE.profile.all_prompts.pooled.nll:.3f}"
    notes = [(row[3].note, row[3].tone) for row in gate_task_table(comparison).rows[:3]]
    assert notes == [("", ""), ("−25.0 worse", "worse"), ("+25.0", "better")]


def test_other_text_is_shown_both_ways_and_an_increase_above_the_limit_is_flagged(comparison: GateComparison):
    rows = gate_texts_table(comparison).rows
    assert [cell.text for cell in rows[0]] == ["prose", "100", "2.0000", "2.0600", "80.0", "1.9980", "95.0"]
    assert [(rows[0][at].note, rows[0][at].tone) for at in (3, 5)] == [("+3.00% above 1%", "worse"), ("−0.10%", "")]
    assert rows[1][3].note == "+1.00%"


def test_sentences_say_what_the_gate_costs_and_saves(comparison: GateComparison):
    task, other = gate_sentences(comparison)
    assert "accuracy by −25.0 points without the gate and by +25.0 points with it" in task
    assert other == (
        "The largest NLL increase of other text is +3.00% (prose) without the gate and +0.40% (code) with it."
    )


def test_the_plot_has_a_pair_of_bars_for_every_group_and_text(comparison: GateComparison):
    svg = to_svg(lambda: gate_plot(comparison), "gate", "title")
    ET.fromstring(svg)
    assert {"all", "a", "b", "prose", "code", "without gate", "with gate"} <= set(texts(svg))
    assert svg.count(f"fill: {ORANGE}") == svg.count(f"fill: {BLUE}") == 5 + 1  # the legend's


def test_bars_have_the_length_of_their_figures(comparison: GateComparison):
    task, other = gate_plot(comparison).axes
    plain = WITH_GATE.baseline.all_prompts.pooled.nll
    assert [bar.get_width() for bar in other.patches] == pytest.approx([3.0, 1.0, -0.1, 0.4])
    assert task.patches[0].get_width() == pytest.approx(plain - WITHOUT.all_prompts.pooled.nll)
    assert task.patches[3].get_width() == pytest.approx(plain - WITH_GATE.profile.all_prompts.pooled.nll)


def test_the_page_has_the_section_only_if_there_is_a_gate():
    final = FinalLayer(self_only_attention=1.0, gate=Gate(low=0.1, high=0.5))
    made = profile(heads=(), neurons=(), method="final-layer", final_layer=final)
    report = Report(
        made,
        "steer fit",
        calibration={"test": WITH_GATE},
        side_effects=GATED,
        without_gate=WithoutGate(WITHOUT, OPENED),
    )
    for written in (render_html(report), render_markdown(report)):
        assert "Effect of the gate" in written
        assert "without the gate and by +25.0 points with it" in written
    without = replace(report, without_gate=None)
    assert "Effect of the gate" not in render_html(without)
    assert len(markdown_tables(render_markdown(report))) == len(markdown_tables(render_markdown(without))) + 2
