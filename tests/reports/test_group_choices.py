"""The part of a report on settings of the final layer that were chosen for each group alone."""

from io import StringIO

from rich.console import Console

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import TemperedChange
from steering_profiles.evaluation.tempered import PairedChange
from steering_profiles.fit_settings import FinalLayerSettings
from steering_profiles.fitting import FinalLayerGroupsResult
from steering_profiles.fitting.final_layer_candidates import FinalLayerCandidate
from steering_profiles.fitting.group_candidates import GroupCandidate, GroupChoice
from steering_profiles.reports import Report, render_markdown
from steering_profiles.reports.group_choices import best_candidates_table, choices_of_groups_table, group_sentences
from steering_server.cli.fit_final_layer import FittedFinalLayerGroups
from tests.reports.samples import profile
from tests.reports.test_gate import GATED, WITH_GATE


def measured(share: float, scale: float, nll: float, accuracy: float) -> GroupCandidate:
    change = TemperedChange(375, 2.0, PairedChange(nll, 0.12), 0.5, PairedChange(accuracy, 0.055))
    return GroupCandidate(FinalLayerCandidate(share, scale, "mean" if scale else None), 0.94, change)


BEST = measured(0.75, -0.2, -0.32, 0.096)
CHOICES = (
    GroupChoice("capitals", Condition(ends_with=(" is",)), 375, 4, 0.89, [BEST, measured(1.0, 0.0, -0.1, 0.0)], BEST),
    GroupChoice("continents", Condition(ends_with=(" of",)), 340, 3, 1.0, [measured(0.0, 0.1, -0.01, 0.0)] * 9, None),
)


def test_the_sentences_say_how_settings_are_chosen_and_what_is_left():
    (how, tone), (left, warning) = group_sentences(CHOICES)
    assert "cross-validation (3 or 4 folds by answer)" in how
    assert (left, warning) == ("No setting is allowed for continents: nothing is changed there.", "worse")
    assert tone == ""
    assert len(list(group_sentences(CHOICES[:1]))) == 1


def test_the_table_has_each_group_with_what_was_chosen_and_its_changes():
    rows = [[cell.text for cell in row] for row in choices_of_groups_table(CHOICES).rows]
    assert rows == [
        ["capitals", "375", "0.89", "0.75", "-0.2", "mean", "−0.320 ± 0.120", "+9.6 ± 5.5"],
        ["continents", "340", "1", "–", "–", "–", "–", "–"],
    ]


def test_the_best_candidates_of_a_group_are_shown_beside_the_chosen_one():
    rows = [[cell.text for cell in row] for row in best_candidates_table(CHOICES).rows]
    assert [row[-1] for row in rows] == ["chosen", "", *[""] * 5]
    assert [row[0] for row in rows] == ["capitals"] * 2 + ["continents"] * 5
    assert rows[1][1:4] == ["1", "0", "–"]


def test_the_report_has_all_of_it():
    page = render_markdown(Report(profile(), "steer fit", group_choices=CHOICES))
    assert "nothing is changed there" in page
    assert "−0.320 ± 0.120" in page
    assert "The best settings of each sub-task" in page


def test_the_command_prints_the_choices_and_the_calibration():
    console = Console(file=StringIO(), width=160)
    result = FinalLayerGroupsResult(
        profile(), FinalLayerSettings(per_group=True), CHOICES, WITH_GATE, WITH_GATE, side_effects=GATED
    )
    FittedFinalLayerGroups(result).show(console)
    said = " ".join(console.file.getvalue().split())
    assert "capitals" in said
    assert "No setting is allowed for continents" in said
    assert "P(correct)" in said
