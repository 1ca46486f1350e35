"""What a report says and in which order. Sections without data are not made."""

from collections.abc import Iterator

from steering_profiles.evaluation.calibration import CalibrationComparison
from steering_profiles.fitting.grid import Point
from steering_profiles.reports import plots, tables
from steering_profiles.reports.blocks import Block, CodeBlock, Details, Page, Paragraph, Plot, Section
from steering_profiles.reports.calibration import calibration_table, final_layer_table, search_sentences, verdict
from steering_profiles.reports.gate import gate_comparison, gate_sentences, gate_task_table, gate_texts_table
from steering_profiles.reports.report import TEST, Report
from steering_profiles.reports.tables import AccuracyChange, Table
from steering_profiles.reports.text import number, percent, signed_percent
from steering_profiles.schema import strength_text
from steering_profiles.side_effect_warnings import NLL_LIMIT, is_beyond

_LONG_TABLE = 100  # rows, from which a table is folded
_NAMED = 5
"""How many things a sentence names before it says how many more there are."""


def page_of(report: Report) -> Page:
    """Return the page that ``report`` makes."""
    profile = report.profile
    return Page(
        name=profile.name,
        window_title=f"{profile.name}: steering profile for {profile.model.id}",
        title=profile.name,
        about=profile.description,
        sections=tuple(sections(report)),
    )


def sections(report: Report) -> list[Section]:
    """Return the sections of ``report`` that have something to say."""
    made = {
        "": _headline(report),
        "How far it carries": _sets(report),
        "Calibration": _calibration(report),
        "Beside other ways of choosing": _methods(report),
        "Side effects": _side_effects(report),
        "Effect of the gate": _gate(report),
        "How it was chosen": _search(report),
        "Which components": _components(report),
        "Where the heads look": _attention(report),
        "Where it comes from": _provenance(report),
        "Make this report again": iter((CodeBlock(report.command),)),
    }
    whole = ((title, tuple(blocks)) for title, blocks in made.items())
    return [Section(title, blocks) for title, blocks in whole if blocks]


def _headline(report: Report) -> Iterator[Block]:
    profile = report.profile
    strength = "" if report.strength == 1 else f", at strength {strength_text(report.strength)}"
    yield Paragraph(f"Changes {profile.summary} in {profile.model.id}{strength}.")
    if TEST in report.accuracy:
        before, after = report.accuracy[TEST]
        overall = AccuracyChange(before.correct, after.correct, before.total)
        if overall.total:
            shares = [percent(correct / overall.total) for correct in (overall.before, overall.after)]
            yield Paragraph(
                f"Accuracy on {overall.total} test prompts: {shares[0]}% without, {shares[1]}% with it.", overall.tone
            )
    worse = _worsened(report)
    if report.accuracy:
        yield (
            Paragraph(f"Worse with it, in percentage points: {_some(worse)}.", "worse")
            if worse
            else Paragraph("Nothing that was measured is worse with it.")
        )
    if report.side_effects is not None and report.side_effects.texts:
        past = [
            f"{t.name} {signed_percent(t.nll_increase)}" for t in report.side_effects.texts if is_beyond(t.nll_increase)
        ]
        if past:
            yield Paragraph(f"Flagged: NLL of other text rises by more than {NLL_LIMIT:.0%}: {_some(past)}.", "worse")
        else:
            worst = report.side_effects.worst
            yield Paragraph(
                f"NLL of other text changes by {signed_percent(worst.nll_increase)} at worst ({worst.name}), "
                f"within the limit of {NLL_LIMIT:.0%}."
            )
    if TEST in report.accuracy:
        yield tables.headline_table(TEST, *report.accuracy[TEST])


def _worsened(report: Report) -> list[str]:
    """Return the groups of prompt sets that are worse with the profile, the most worsened first."""
    fallen: list[tuple[float, str]] = []
    for name, (before, after) in report.accuracy.items():
        for group in before.counts:
            changed = tables.accuracy_change(before, after, group)
            if changed is not None and changed.tone == "worse":
                points = 100 * (changed.after - changed.before) / changed.total
                fallen.append((points, f"{name} on {group} −{-points:.1f}"))
    return [what for _, what in sorted(fallen)]


def _some(items: list[str]) -> str:
    more = len(items) - _NAMED
    return "; ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _sets(report: Report) -> Iterator[Block]:
    if set(report.accuracy) - {TEST}:
        yield Paragraph(
            "The test prompts are shaped like those of the fit; the other sets tell how far it generalises."
        )
        yield _unfolded(tables.sets_table(report))


def _calibration(report: Report) -> Iterator[Block]:
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
        "Reliability of the answers on test",
        "Each dot is the answers of one stretch of confidence, larger for more of them: how sure the model is "
        "on average (rightwards) and how many are right (upwards). On the dashed line it is as sure as it is "
        "right; below it, too sure. Beside the plain model and the profile stands the plain model at "
        f"temperature {number(compared.temperature)}, which was tuned on dev and changes no answer.",
        lambda: plots.reliability_plot(compared),
    )
    yield calibration_table(TEST, compared)


def _methods(report: Report) -> Iterator[Block]:
    if report.comparison:
        yield tables.methods_table(report)


def _side_effects(report: Report) -> Iterator[Block]:
    if report.side_effects is not None and report.side_effects.texts:
        yield tables.side_effects_table(report)


def _gate(report: Report) -> Iterator[Block]:
    comparison = gate_comparison(report.without_gate, report.calibration.get(TEST), report.side_effects)
    if comparison is not None:
        for text in gate_sentences(comparison):
            yield Paragraph(text)
        yield Plot(
            "gate",
            "What the profile changes without its gate and behind it, on test and on other text",
            "Left: by how much the NLL of the correct answer falls on test, in nats; rightwards is better. Right: by "
            "how much the NLL of other text rises; leftwards is better, and right of the dashed line it is past the "
            "limit. Blue is the profile without its gate, orange behind it.",
            lambda: plots.gate_plot(comparison),
        )
        yield gate_task_table(comparison)
        yield gate_texts_table(comparison)


def _search(report: Report) -> Iterator[Block]:
    if report.path:
        yield Plot(
            "path",
            "Dev errors and drift over the course of the search",
            "Each dot is a step of the search, further right where more is changed in all (the sum of |scale − 1|). "
            "Above: wrong answers on dev, which should fall. Below: how much worse neutral text is predicted, which "
            "should stay low. The ringed step was chosen.",
            lambda: plots.path_plot(report.path),
        )
        yield Details(f"All {len(report.path)} steps", tables.path_table(report))
    if report.grid:
        yield Plot(
            "grid",
            "Dev accuracy by number of components and scale",
            "One cell per setting: how many of the best-ranked components are scaled (rows), by how much (columns), "
            "and the dev accuracy that gives, in percent. Hatched cells were measured on part of dev only, since they "
            "could no longer win. The framed cell was chosen. Look for a plateau around it: a lone bright cell rarely "
            "holds on other prompts.",
            lambda: plots.grid_map(report.grid, _chosen_point(report)),
        )
        yield Details(f"All {len(report.grid)} points", tables.grid_table(report))
    if report.final_layer is not None:
        grid, chosen = report.final_layer.grid, report.final_layer.chosen
        for text, tone in search_sentences(report.final_layer):
            yield Paragraph(text, tone)
        yield Plot(
            "final-layer",
            "NLL of the correct answer on dev by self-only attention and share of the intercept",
            "One cell per setting: how much of the final layer's attention is replaced by each position's own value "
            "(rows), how much of the intercept is subtracted (columns; less than 0 adds), and the NLL of the correct "
            "answer on dev, in nats, averaged over groups: less is better. Hatched cells raise the NLL of other text "
            "past the limit. The framed cell was chosen.",
            lambda: plots.final_layer_maps(grid, chosen),
        )
        yield Details(f"All {len(grid)} points", final_layer_table(grid))


def _components(report: Report) -> Iterator[Block]:
    profile, ranking = report.profile, report.ranking
    if profile.heads:
        yield Plot(
            "heads",
            "Scaled heads by layer",
            "Each square is an attention head, layers from left (first) to right (last). Coloured ones are scaled by "
            "the profile: orange amplified, blue weakened, the more the deeper.",
            lambda: plots.head_scales(profile),
        )
    if profile.neurons:
        yield Plot(
            "neurons",
            "Scaled neurons per layer",
            "How many feed-forward neurons of each layer the profile scales: orange amplified, blue weakened.",
            lambda: plots.neurons_per_layer(profile),
        )
    if ranking is not None and ranking.components:
        count = len(ranking.components)
        if ranking.groups:
            yield Plot(
                "accuracy",
                "How accurate the components are, per sub-task",
                f"For each sub-task, how many of the {count} ranked components order the candidate answers rightly on "
                "how large a share of train prompts (logarithmic scale). What is orange is what the profile "
                f"scales. Right of the dashed line, at {percent(ranking.accuracy_threshold)}%, a component counts as "
                "right on the sub-task.",
                lambda: plots.accuracy_histograms(ranking),
            )
        coloured = (
            "brighter ones are right on more sub-tasks" if ranking.groups else "one colour, as there are no sub-tasks"
        )
        yield Plot(
            "precision-recall",
            "Precision and recall of the components",
            f"Each dot is one of the {count} ranked components: how often it promotes the right answer (recall, "
            "rightwards) and how often what it promotes is right (precision, upwards), averaged over sub-tasks; "
            f"{coloured}. Ringed ones are scaled by the profile. Top right is best; many dots can share a place.",
            lambda: plots.precision_recall(ranking),
        )
    if profile.heads or profile.neurons:
        yield _unfolded(tables.scales_table(report))
    if ranking is not None and ranking.components:
        yield Details("The ranking", tables.ranking_table(ranking))


def _attention(report: Report) -> Iterator[Block]:
    if report.attention:
        yield Plot(
            "attention",
            "Attention patterns on an example prompt: " + ", ".join(str(p.component) for p in report.attention),
            "One picture per head, of the plain model. Each row is a token of the prompt and shows which tokens "
            "(columns) it attends to, stronger for more; every row sums to 1. The last row is where the answer is "
            "predicted. A · is a space, ↵ a line end. Of a long prompt the last tokens are shown.",
            lambda: plots.attention_maps(report.attention),
        )
        yield tables.attention_table(report.attention)


def _provenance(report: Report) -> Iterator[Block]:
    yield from tables.provenance_tables(report)
    for title, text in tables.folded_facts(report):
        yield Details(title, text)


def _unfolded(table: Table) -> Table | Details:
    """Fold a table only where it would fill pages."""
    return table if len(table.rows) <= _LONG_TABLE else Details(f"{table.caption} ({len(table.rows)} rows)", table)


def _chosen_point(report: Report) -> Point | None:
    """Return the grid point that the provenance names as chosen, if it names one."""
    chosen = report.profile.provenance.chosen if report.profile.provenance is not None else {}
    match chosen.get("k"), chosen.get("alpha"):
        case int(k), float() | int() as alpha:
            return Point(k, float(alpha))
    return None
