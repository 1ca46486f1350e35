"""The parts of a report on calibration and on a search over the final layer."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy, CalibrationComparison, ScoredAnswer
from steering_profiles.evaluation.calibration import calibrate_arm
from steering_profiles.final_layer_fields import FinalLayer, Gate
from steering_profiles.fitting.final_layer_candidates import (
    PLAIN,
    FinalLayerCandidate,
    MeasuredCandidate,
    OtherMeasurements,
    RejectedCandidate,
)
from steering_profiles.fitting.gating import Score
from steering_profiles.reports import FinalLayerSearch, Report, render_html, render_markdown
from steering_profiles.reports.calibration import (
    calibration_table,
    final_layer_table,
    search_sentences,
    sharpens_only,
    verdict,
)
from steering_profiles.reports.plots.final_layer import final_layer_maps
from steering_profiles.reports.plots.reliability import reliability_plot
from steering_profiles.reports.plots.style import ORANGE, to_svg
from tests.evaluation.test_calibration import answered
from tests.reports.reading import markdown_tables
from tests.reports.samples import profile
from tests.reports.test_plots import texts


def compared(steered: list[ScoredAnswer], tempered: list[ScoredAnswer] | None = None) -> CalibrationComparison:
    """A comparison with a baseline that answers two of four prompts correctly with a confidence of 0.5."""
    plain = [answered(index < 2, 0.5, group="ab"[index % 2]) for index in range(4)]
    arms = (calibrate_arm(some, plain) for some in (plain, steered, tempered or plain))
    return CalibrationComparison(*arms, temperature=1.25)


def four(correct: int, sure_if_correct: float, sure_if_wrong: float) -> list[ScoredAnswer]:
    return [
        answered(index < correct, sure_if_correct if index < correct else sure_if_wrong, group="ab"[index % 2])
        for index in range(4)
    ]


SHARPER = compared(four(2, 0.7, 0.8))
BETTER = compared(four(3, 0.7, 0.5))


def measured(
    own: float, scale: float, nll: float, *, nll_increase: float | None = 0.0, gate: Gate | None = None
) -> MeasuredCandidate:
    point = FinalLayerCandidate(own, scale, "mean" if scale else None, gate)
    score = Score(Accuracy({"a": (3, 10)}), nll + 1, 0.25, 0.9, nll)
    return MeasuredCandidate(
        point, score, None if nll_increase is None else OtherMeasurements({"few": score}, nll_increase)
    )


GRID = [
    measured(0, 0, 2.0),
    measured(0, -0.5, 1.75, nll_increase=0.02),
    measured(1.0, 0, 1.5, nll_increase=0.005),
    measured(1.0, -0.5, 2.25, nll_increase=None),
]
SHORT = Condition(not_=Condition(from_position=8))
SEARCH = FinalLayerSearch(GRID, GRID[2], GRID[1])


def sentences(of: CalibrationComparison) -> str:
    return " ".join(sentence for sentence, _ in verdict(of))


def test_a_gain_that_is_only_sharpening_is_a_warning():
    assert sharpens_only(SHARPER)
    assert "The gain is only sharpening" in sentences(SHARPER)


def test_more_correct_answers_are_not_only_sharpening():
    assert not sharpens_only(BETTER)
    assert "sharpening" not in sentences(BETTER)


def test_no_change_is_not_sharpening():
    assert not sharpens_only(compared(four(2, 0.5, 0.5)))


def test_a_temperature_that_does_as_well_is_a_warning():
    assert "the temperature alone does as well" in sentences(compared(four(2, 0.5, 0.5)))
    assert "By NLL, the profile is better than the temperature" in sentences(BETTER)
    assert "Mean P(correct) is 0.312 without" in sentences(BETTER)


def test_a_profile_worse_than_the_unsteered_model_is_a_warning():
    said = "By NLL, the profile is worse than the unsteered model."
    assert said in sentences(compared(four(2, 0.4, 0.4)))
    assert said not in sentences(BETTER)
    assert said not in sentences(compared(four(2, 0.5, 0.5)))


def test_the_table_has_every_arm_for_each_group_and_by_the_baseline_answer():
    table = calibration_table("test", BETTER)
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [row[0] for row in rows[::3]] == ["all", "a", "b", "baseline correct", "baseline wrong"]
    assert [row[2] for row in rows[:3]] == ["baseline", "profile", "temperature 1.25"]
    assert rows[1][1:] == ["", "profile", "75.0", "0.556", "0.787", "35.0", "0.650"]
    assert [row[3] for row in rows[-6:]] == ["100.0", "100.0", "100.0", "0.0", "50.0", "0.0"]


def test_sentences_on_the_search_name_the_choice_without_the_limit():
    said = " ".join(sentence for sentence, _ in search_sentences(SEARCH))
    assert (
        "Chosen on dev: self-only attention 1 (NLL 1.5000 at temperature 0.9, P(correct) 0.250, NLL increase +0.50%)."
        in said
    )
    assert "Without the limit on the NLL of other text, the choice would be self-only attention 0, -0.5 x mean" in said
    nothing = " ".join(s for s, _ in search_sentences(FinalLayerSearch(GRID, GRID[0], GRID[0])))
    assert "so the profile changes nothing" in nothing
    assert "Without the limit" not in nothing


def test_sentences_on_the_search_say_why_the_best_on_dev_is_not_allowed():
    refused = RejectedCandidate(
        GRID[1], ("the NLL of other text rises by 2.00%, more than 1.00%", "few loses 3.0 points")
    )
    said = [sentence for sentence, _ in search_sentences(replace(SEARCH, rejected=refused))][-1]
    assert said.startswith("The best setting on dev, self-only attention 0, -0.5 x mean (NLL 1.7500")
    assert said.endswith(
        " is not allowed: the NLL of other text rises by 2.00%, more than 1.00%; few loses 3.0 points."
    )
    assert not any("not allowed" in sentence for sentence, _ in search_sentences(SEARCH))


def test_a_map_shows_every_point_and_frames_the_chosen_one():
    svg = to_svg(lambda: final_layer_maps(GRID, GRID[2]), "x", "x")
    assert {"2.00", "1.75", "1.50", "2.25", "-0.5", "intercept: mean output of the MLP"} <= set(texts(svg))
    assert svg.count(f"stroke: {ORANGE}") == 1


def test_a_choice_under_a_condition_is_shown_beside_settings_under_the_same():
    there = measured(1.0, 0, 1.25)
    there = replace(there, candidate=replace(there.candidate, condition=SHORT))
    shown = texts(to_svg(lambda: final_layer_maps([*GRID, there], there), "x", "x"))
    assert "1.25" in shown
    assert not {"1.50", "1.75", "2.25"} & set(shown), "those apply everywhere"


def test_the_search_has_a_column_for_conditions_if_it_tried_any():
    there = replace(GRID[2], candidate=replace(GRID[2].candidate, condition=SHORT))
    table = final_layer_table([*GRID, there])
    place = [column.heading for column in table.columns].index("condition")
    assert sorted(row[place].text for row in table.rows) == sorted(["–"] * len(GRID) + [str(SHORT)])
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "condition" not in [column.heading for column in final_layer_table(GRID).columns]


def test_a_gated_choice_is_framed_at_its_settings():
    gated = measured(1.0, 0, 1.25, gate=Gate(low=0.0, high=0.5))
    shown = texts(to_svg(lambda: final_layer_maps([*GRID, gated], gated), "x", "x"))
    assert "1.50" in shown
    assert "1.25" not in shown


@pytest.mark.parametrize("grid", [GRID[:1], GRID[:3:2]], ids=["the unsteered model alone", "no intercept"])
def test_a_map_needs_no_intercept(grid: list[MeasuredCandidate]):
    ET.fromstring(to_svg(lambda: final_layer_maps(grid, grid[0]), "x", "x"))


def test_the_diagram_has_a_dot_for_every_bin_that_is_not_empty():
    figure = reliability_plot(BETTER)
    dots = [sum(line.get_marker() == "o" for line in axes.lines) for axes in figure.axes]
    assert dots == [1, 2, 1]
    assert figure.axes[2].get_title().startswith("temperature 1.25")


def test_page_and_markdown_have_both():
    final = profile(heads=(), neurons=(), method="final-layer", final_layer=FinalLayer(self_only_attention=1.0))
    report = Report(final, "steer fit", calibration={"test": BETTER, "1 shot": SHARPER}, final_layer=SEARCH)
    page, markdown = render_html(report), render_markdown(report)
    for said in ("Calibration", "By NLL, the profile is better", "Reliability diagrams", "Calibration on 1 shot"):
        assert said in page
    assert len(markdown_tables(markdown)) >= 3
    assert "sharpening" not in page  # other sets than test have a table only


def test_a_point_behind_a_gate_says_so():
    point = replace(PLAIN, self_only_attention=0.5, gate=Gate(low=0.1, high=0.4))
    assert str(point) == "self-only attention 0.5, where the top probability is 0.1..0.4"
