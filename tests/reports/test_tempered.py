"""The part of a report on what a profile knows, where both sides have a tuned temperature."""

from dataclasses import replace

from steering_profiles.evaluation import CalibrationComparison
from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.evaluation.tempered import PairedChange, TemperedChange, TemperedComparison
from steering_profiles.final_layer_fields import FinalLayer
from steering_profiles.fitting.final_layer import describe
from steering_profiles.fitting.final_layer_candidates import PLAIN, MeasuredCandidate, OtherMeasurements
from steering_profiles.reports import FinalLayerSearch, Report, render_html, render_markdown
from steering_profiles.reports.tempered import choices_table, tempered_sentences, tempered_table
from tests.reports.samples import profile
from tests.reports.test_calibration import BETTER, measured


def change(nll: float, accuracy: float, half: float | None = 0.1) -> TemperedChange:
    return TemperedChange(40, 2.0, PairedChange(nll, half), 0.5, PairedChange(accuracy, half))


def tempered(**groups: TemperedChange) -> CalibrationComparison:
    """A comparison whose pooled change is that of the first group."""
    both = TemperedComparison(0.8, next(iter(groups.values())), groups)
    return replace(BETTER, both_tempered=both)


SETS = {
    "test": tempered(capitals=change(-0.3, 0.05), sports=change(-0.2, 0.03)),
    "4 shots": tempered(capitals=change(0.2, -0.05), sports=change(-0.2, 0.0)),
}


SETTINGS = replace(PLAIN, self_only_attention=0.5)


def said(sets: dict[str, CalibrationComparison]) -> list[str]:
    return [sentence for sentence, _ in tempered_sentences(sets)]


def test_the_sentences_count_groups_that_are_better_and_name_those_that_are_worse():
    first, test, shots = said(SETS)
    assert first == (
        "With the temperature that dev prefers on both sides (1.25 without the profile, 0.8 with it), the NLL on test "
        "changes by −0.300 ± 0.100 and accuracy by +5.0 ± 10.0 points."
    )
    assert test == (
        "test: NLL and accuracy are both better on 2 of 2 sub-tasks; none is worse by more than its interval."
    )
    assert shots == (
        "4 shots: NLL and accuracy are both better on 0 of 2 sub-tasks; worse by more than its interval: capitals."
    )


def test_a_profile_that_a_tuned_temperature_equals_is_a_warning():
    sentences = list(tempered_sentences({"test": tempered(capitals=change(0.0, 0.05))}))
    assert ("A tuned temperature does as well as the profile, or better: what it changes is confidence.", "worse") in (
        sentences
    )


def test_the_table_begins_with_what_is_worse_by_more_than_its_interval():
    rows = [[cell.text for cell in row[:2]] for row in tempered_table(SETS).rows]
    assert rows == [
        ["4 shots", "all"],
        ["4 shots", "capitals"],
        ["test", "sports"],
        ["4 shots", "sports"],
        ["test", "all"],
        ["test", "capitals"],
    ]
    worst = tempered_table(SETS).rows[1]
    assert [cell.text for cell in worst[2:]] == ["40", "2.000", "+0.200 ± 0.100", "50.0", "−5.0 ± 10.0"]
    assert (worst[4].note, worst[4].tone) == ("worse", "worse")


def test_a_change_without_an_interval_is_shown_alone():
    table = tempered_table({"test": tempered(capitals=change(-0.3, 0.05, None))})
    assert [cell.text for cell in table.rows[0][4::2]] == ["−0.300", "+5.0"]


def with_changes(own: float, **groups: TemperedChange) -> MeasuredCandidate:
    one = measured(own, 0, 1.5)
    assert one.other is not None
    return replace(one, other=OtherMeasurements(one.other.fit_formats, 0.0, {"dev": groups}))


def test_each_group_shows_the_chosen_setting_and_the_best_for_it_alone():
    chosen = with_changes(0.5, capitals=change(-0.1, 0.01), sports=change(0.05, -0.01))
    other = with_changes(1.0, capitals=change(-0.4, 0.02), sports=change(0.3, -0.2))
    table = choices_table([measured(0, 0, 2.0), chosen, other], chosen)
    assert table is not None
    capitals, sports = ([cell.text for cell in row] for row in table.rows)
    assert capitals[:5] == ["dev", "capitals", "2.000", "−0.100 ± 0.100", "+1.0 ± 10.0"]
    assert capitals[5:] == ["self-only attention 1", "−0.400 ± 0.100", "+2.0 ± 10.0"]
    assert sports[:5] == ["dev", "sports", "2.000", "+0.050 ± 0.100", "−1.0 ± 10.0"]
    assert sports[5:] == ["the unsteered model", "–", "–"]
    assert choices_table([measured(0, 0, 2.0)], measured(0, 0, 2.0)) is None


def test_the_description_begins_with_a_temperature_that_does_better():
    for worse in (change(0.01, 0.05), change(-0.2, -0.01)):
        text = describe("capitals", SETTINGS, tempered(capitals=worse))
        assert text.startswith("A tuned temperature does better on capitals than this change of the final layer")
    assert describe("capitals", SETTINGS, tempered(capitals=change(-0.2, 0.1))) == (
        "Changes the final layer so that the right answers on capitals become likelier."
    )
    some = tempered(capitals=change(-0.2, 0.1), sports=change(0.2, 0.1))
    assert describe("facts", SETTINGS, some).endswith(" It makes answers worse on sports.")


def test_the_description_of_what_changes_nothing_says_so():
    assert describe("capitals", PLAIN, tempered(capitals=change(0.0, 0.0))) == (
        "Changes nothing: no change of the final layer was better on capitals than a tuned temperature."
    )


def test_page_and_markdown_have_the_groups_and_what_every_position_would_cost():
    final = profile(heads=(), neurons=(), method="final-layer", final_layer=FinalLayer(self_only_attention=1.0))
    chosen = with_changes(0.5, capitals=change(-0.1, 0.01), sports=change(0.05, -0.01))
    report = Report(
        final,
        "steer fit",
        calibration=SETS,
        side_effects=SideEffects((TextEffect("prose", 100, 2.0, 2.0, 1.0),)),
        everywhere=SideEffects((TextEffect("prose", 100, 2.0, 2.1, 0.8),)),
        final_layer=FinalLayerSearch([measured(0, 0, 2.0), chosen], chosen, chosen),
    )
    for page in (render_html(report), render_markdown(report)):
        assert "worse by more than its interval: capitals" in page
        assert "At every position the same settings would change the NLL by +5.00%" in page
        assert "best for it alone" in page


def test_the_unsteered_model_as_the_choice_says_that_a_temperature_does_as_well():
    plain = replace(measured(0, 0, 2.0), candidate=PLAIN)
    final = profile(heads=(), neurons=(), method="final-layer", final_layer=FinalLayer(self_only_attention=1.0))
    page = render_markdown(Report(final, "steer fit", final_layer=FinalLayerSearch([plain], plain, plain)))
    assert "No allowed setting is better on dev than a tuned temperature (0.9)" in page
