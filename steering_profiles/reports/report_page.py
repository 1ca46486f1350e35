"""The page of a report on a profile. Sections without data are left out."""

from collections.abc import Iterator

from steering_profiles.evaluation import humaneval
from steering_profiles.evaluation.calibration import CalibrationComparison
from steering_profiles.fields import strength_text
from steering_profiles.fitting.grid import GridPoint
from steering_profiles.reports import plots
from steering_profiles.reports.accuracy_tables import (
    AccuracyChange,
    accuracy_change,
    headline_table,
    methods_table,
    sets_table,
)
from steering_profiles.reports.blocks import Block, CodeBlock, Details, Page, Paragraph, Plot, Section
from steering_profiles.reports.calibration import calibration_table, final_layer_table, search_sentences, verdict
from steering_profiles.reports.component_tables import attention_table, ranking_table, scales_table
from steering_profiles.reports.gate import gate_comparison, gate_sentences, gate_task_table, gate_texts_table
from steering_profiles.reports.group_choices import best_candidates_table, choices_of_groups_table, group_sentences
from steering_profiles.reports.no_harm import no_harm_sentences, no_harm_table
from steering_profiles.reports.provenance_tables import long_facts, provenance_tables
from steering_profiles.reports.report import TEST, Report
from steering_profiles.reports.search_tables import grid_table, path_table
from steering_profiles.reports.side_effects import (
    everywhere_sentence,
    limit_sentences,
    side_effects_sentences,
    side_effects_table,
)
from steering_profiles.reports.tables import Table
from steering_profiles.reports.tempered import choices_table, tempered_sentences, tempered_table
from steering_profiles.reports.text import named, number, percent

_LONG_TABLE = 100
"""Maximum number of rows of a table that is not collapsed."""


def page_of(report: Report) -> Page:
    """Return the page of ``report``."""
    profile = report.profile
    return Page(
        name=profile.name,
        window_title=f"{profile.name}: steering profile for {profile.model.id}",
        title=profile.name,
        about=profile.description,
        sections=tuple(sections(report)),
    )


def sections(report: Report) -> list[Section]:
    """Return the sections of ``report`` that have data."""
    made = {
        "": _headline(report),
        "Generalisation": _sets(report),
        "Calibration": _calibration(report),
        "Comparison with other methods": _methods(report),
        "Side effects": _side_effects(report),
        "Effect of the gate": _gate(report),
        "Search": _search(report),
        "Components": _components(report),
        "Attention patterns": _attention(report),
        "Provenance": _provenance(report),
        "Reproduce this report": iter((CodeBlock(report.command),)),
    }
    whole = ((title, tuple(blocks)) for title, blocks in made.items())
    return [Section(title, blocks) for title, blocks in whole if blocks]


def _headline(report: Report) -> Iterator[Block]:
    profile = report.profile
    strength = "" if report.strength == 1 else f", at strength {strength_text(report.strength)}"
    yield Paragraph(f"The profile changes {profile.summary} in {profile.model.id}{strength}.")
    if TEST in report.accuracy:
        before, after = report.accuracy[TEST]
        overall = AccuracyChange(before.correct, after.correct, before.total)
        if overall.total:
            shares = [percent(correct / overall.total) for correct in (overall.before, overall.after)]
            yield Paragraph(
                f"Accuracy on {overall.total} test prompts: {shares[0]}% without the profile, {shares[1]}% with it.",
                overall.tone,
            )
    worse = _worsened(report)
    if report.accuracy:
        yield (
            Paragraph(f"Accuracy is lower with the profile, in percentage points: {named(worse)}.", "worse")
            if worse
            else Paragraph("No measured accuracy is lower with the profile.")
        )
    if report.side_effects is not None:
        for text, tone in limit_sentences(report.side_effects):
            yield Paragraph(text, tone)
    if TEST in report.accuracy:
        yield headline_table(TEST, *report.accuracy[TEST])


def _worsened(report: Report) -> list[str]:
    """Return the groups of prompt sets whose accuracy is lower with the profile, the largest decrease first."""
    fallen: list[tuple[float, str]] = []
    for name, (before, after) in report.accuracy.items():
        for group in before.counts:
            changed = accuracy_change(before, after, group)
            if changed is not None and changed.tone == "worse":
                points = 100 * (changed.after - changed.before) / changed.total
                fallen.append((points, f"{name} on {group} −{-points:.1f}"))
    return [what for _, what in sorted(fallen)]


def _sets(report: Report) -> Iterator[Block]:
    if set(report.accuracy) - {TEST}:
        yield Paragraph(
            "The test prompts have the format of the train prompts. The other sets show how well the profile "
            "generalises to other formats."
        )
        yield _collapsed_if_long(sets_table(report))


def _calibration(report: Report) -> Iterator[Block]:
    if any(compared.both_tempered is not None for compared in report.calibration.values()):
        for text, tone in tempered_sentences(report.calibration):
            yield Paragraph(text, tone)
        yield tempered_table(report.calibration)
    for name, compared in report.calibration.items():
        if name == TEST:
            yield from _calibration_on_test(compared)
        else:
            yield Details(f"Calibration on {name}", calibration_table(name, compared))


def _calibration_on_test(compared: CalibrationComparison) -> Iterator[Block]:
    for text, tone in verdict(compared):
        yield Paragraph(text, tone)
    yield Plot(
        "reliability",
        "Reliability diagrams on test",
        "Each dot is a bin of answers by confidence: mean confidence (x) and accuracy (y). Its area is proportional to "
        "the number of answers. On the dashed line the model is calibrated; below it, it is overconfident. The third "
        f"diagram is the unsteered model at temperature {number(compared.temperature)}, which was tuned on dev and "
        "does not change any answer.",
        lambda: plots.reliability_plot(compared),
    )
    yield calibration_table(TEST, compared)


def _methods(report: Report) -> Iterator[Block]:
    if report.comparison:
        yield methods_table(report)


def _side_effects(report: Report) -> Iterator[Block]:
    if report.side_effects is not None:
        for sentence in side_effects_sentences(report.side_effects):
            yield Paragraph(sentence)
        yield side_effects_table(report.side_effects)
    if report.pass_at_1 is not None:
        yield headline_table("HumanEval, pass@1", *report.pass_at_1)
        yield Paragraph(humaneval.coarseness(*report.pass_at_1))
    if report.everywhere is not None:
        yield Paragraph(*everywhere_sentence(report.everywhere))


def _gate(report: Report) -> Iterator[Block]:
    comparison = gate_comparison(report.without_gate, report.calibration.get(TEST), report.side_effects)
    if comparison is not None:
        for text in gate_sentences(comparison):
            yield Paragraph(text)
        yield Plot(
            "gate",
            "Effect of the profile without and with its gate, on test and on other text",
            "Left: decrease of the NLL of the correct answer on test, in nats; higher is better. Right: relative "
            "increase of the NLL of other text; lower is better, and the dashed line is the limit. Blue is the profile "
            "without its gate, orange with it.",
            lambda: plots.gate_plot(comparison),
        )
        yield gate_task_table(comparison)
        yield gate_texts_table(comparison)


def _search(report: Report) -> Iterator[Block]:
    if report.path:
        if report.validation_set:
            sizes = ", ".join(f"{name} {size}" for name, size in report.validation_set.items() if size)
            yield Paragraph(
                f"The steps were measured on a validation set of {sum(report.validation_set.values())} prompts from "
                f"dev and the other fitting formats: {sizes}."
            )
        yield Plot(
            "path",
            "Validation errors and NLL increase over the search",
            "Each dot is a measured step of the search, by its total change: the sum of |scale − 1| over the "
            "components (L1). Above: wrong answers on the validation set. Below: relative increase of the NLL of "
            "neutral text. Lower is better in both. The ringed step was chosen.",
            lambda: plots.path_plot(report.path),
        )
        yield Details(f"All {len(report.path)} steps", path_table(report))
    if report.no_harm is not None:
        for sentence in no_harm_sentences(report.no_harm, report.profile):
            yield Paragraph(sentence)
        if report.no_harm.changes:
            yield Details(f"All {len(report.no_harm.changes)} groups", no_harm_table(report.no_harm))
    if report.grid:
        yield Plot(
            "grid",
            "Dev accuracy by number of components and scale",
            "Each cell is a setting: the number of best-ranked components that are scaled (rows), their scale "
            "(columns) and the dev accuracy in percent. Hatched cells were measured on a part of dev only, since they "
            "could no longer be chosen. The framed cell was chosen. A setting on a plateau of high accuracy "
            "generalises better than an isolated one.",
            lambda: plots.grid_map(report.grid, _chosen_point(report)),
        )
        yield Details(f"All {len(report.grid)} points", grid_table(report))
    if report.final_layer is not None:
        grid, chosen = report.final_layer.grid, report.final_layer.chosen
        for text, tone in search_sentences(report.final_layer):
            yield Paragraph(text, tone)
        yield Plot(
            "final-layer",
            "NLL of the correct answer on dev by self-only attention and share of the intercept",
            "Each cell is a setting: the share of the final layer's attention that is replaced by each position's own "
            "value (rows), the share of the intercept that is subtracted (columns; a negative share is added), and the "
            "NLL of the correct answer on dev in nats, averaged over groups, at the temperature that is best for the "
            "setting. Lower is better. Hatched cells increase "
            "the NLL of other text above the limit. The framed cell was chosen.",
            lambda: plots.final_layer_maps(grid, chosen),
        )
        by_group = choices_table(grid, chosen)
        if by_group is not None:
            yield _collapsed_if_long(by_group)
        yield Details(f"All {len(grid)} points", final_layer_table(grid))
    if report.group_choices:
        for text, tone in group_sentences(report.group_choices):
            yield Paragraph(text, tone)
        yield choices_of_groups_table(report.group_choices)
        yield Details("The best settings of each sub-task", best_candidates_table(report.group_choices))


def _components(report: Report) -> Iterator[Block]:
    profile, ranking = report.profile, report.ranking
    if profile.heads:
        yield Plot(
            "heads",
            "Scaled heads by layer",
            "Each square is an attention head. The profile scales the coloured ones: orange heads are amplified, blue "
            "heads weakened. Deeper colours are larger changes.",
            lambda: plots.head_scales(profile),
        )
    if profile.neurons:
        yield Plot(
            "neurons",
            "Scaled neurons per layer",
            "Number of feed-forward neurons per layer that the profile scales: amplified (orange), weakened (blue).",
            lambda: plots.neurons_per_layer(profile),
        )
    if ranking is not None and ranking.components:
        count = len(ranking.components)
        if ranking.groups:
            yield Plot(
                "accuracy",
                "Accuracy of the components per sub-task",
                f"Histograms of the accuracy of the {count} ranked components: the share of train prompts on which a "
                "component orders the candidate answers correctly. The number of components is on a logarithmic scale. "
                "Components that the profile scales are orange. Above the dashed line, "
                f"{percent(ranking.accuracy_threshold)}%, a component counts as correct on the sub-task.",
                lambda: plots.accuracy_histograms(ranking),
            )
        colours = "Brighter components are correct on more sub-tasks." if ranking.groups else "There are no sub-tasks."
        yield Plot(
            "precision-recall",
            "Precision and recall of the components",
            f"Each dot is one of the {count} ranked components. Recall is how often it promotes the correct answer, "
            "precision how often the answer that it promotes is correct, both averaged over sub-tasks. "
            f"{colours} The profile scales the ringed ones. Dots can overlap.",
            lambda: plots.precision_recall(ranking),
        )
    if profile.heads or profile.neurons:
        yield _collapsed_if_long(scales_table(report))
    if ranking is not None and ranking.components:
        yield Details("Ranking", ranking_table(ranking))


def _attention(report: Report) -> Iterator[Block]:
    if report.attention:
        yield Plot(
            "attention",
            "Attention patterns on an example prompt: " + ", ".join(str(p.component) for p in report.attention),
            "Attention weights of heads of the unsteered model. Each row is a token of the prompt; its weights on the "
            "tokens in the columns sum to 1. The answer is predicted at the last row. · is a space, ↵ a line end. Only "
            "the last tokens of a long prompt are shown.",
            lambda: plots.attention_maps(report.attention),
        )
        yield attention_table(report.attention)


def _provenance(report: Report) -> Iterator[Block]:
    yield from provenance_tables(report)
    for title, text in long_facts(report):
        yield Details(title, text)


def _collapsed_if_long(table: Table) -> Table | Details:
    """Return ``table``, collapsed if it is long."""
    return table if len(table.rows) <= _LONG_TABLE else Details(f"{table.caption} ({len(table.rows)} rows)", table)


def _chosen_point(report: Report) -> GridPoint | None:
    """Return the chosen grid point that the provenance records, if any."""
    chosen = report.profile.provenance.chosen if report.profile.provenance is not None else {}
    match chosen.get("k"), chosen.get("alpha"):
        case int(k), float() | int() as alpha:
            return GridPoint(k, float(alpha))
    return None
