"""Tables of accuracy and side effects."""

from collections.abc import Iterable
from dataclasses import dataclass

from steering_profiles.evaluation.accuracy import Accuracy
from steering_profiles.reports.report import Report
from steering_profiles.reports.tables import ALL, MOST_COLUMNS, Cell, Column, Table, Tone
from steering_profiles.reports.text import percent, signed_percent
from steering_profiles.side_effect_warnings import NLL_LIMIT, is_beyond


@dataclass(frozen=True)
class AccuracyChange:
    """Correct answers without and with the profile on the same prompts."""

    before: int
    after: int
    total: int

    @property
    def tone(self) -> Tone:
        """Which way it went, by the counts and not by rounded percentages."""
        return "worse" if self.after < self.before else "better" if self.after > self.before else ""

    @property
    def cell(self) -> Cell:
        """``58.0 → 100.0`` and by how much that is better or worse."""
        if not self.total:
            return Cell("–")
        before, after = percent(self.before / self.total), percent(self.after / self.total)
        return Cell(f"{before} → {after}", self.note, self.tone)

    @property
    def note(self) -> str:
        """``+42.0``, ``−8.0 worse``, or nothing where nothing changed."""
        points = f"{100 * (self.after - self.before) / self.total:+.1f}".replace("-", "−") if self.total else ""
        return {"better": points, "worse": f"{points} worse", "": ""}[self.tone]


def accuracy_change(before: Accuracy, after: Accuracy, group: str | None = None) -> AccuracyChange | None:
    """Return how ``group``, or all groups together, changed; None if the set has no such group."""
    if group is None:
        return AccuracyChange(before.correct, after.correct, before.total)
    if group not in before.counts or group not in after.counts:
        return None
    correct, total = before.counts[group]
    return AccuracyChange(correct, after.counts[group][0], total)


def groups_of(accuracies: Iterable[Accuracy]) -> list[str]:
    """Return every group that some of ``accuracies`` has, in the order in which they first appear."""
    return list(dict.fromkeys(group for accuracy in accuracies for group in accuracy.counts))


def headline_table(name: str, before: Accuracy, after: Accuracy) -> Table:
    """Accuracy per sub-task with 95% intervals."""
    rows = [_headline_row(group, *before.counts[group], *after.counts[group]) for group in before.counts]
    if len(rows) > 1:
        rows.append(_headline_row(ALL, before.correct, before.total, after.correct, after.total))
    return Table(
        f"Accuracy on {name}, % (in brackets: 95% confidence interval)",
        (
            Column("sub-task", numeric=False, code=True),
            Column("prompts"),
            Column("without"),
            Column("with"),
            Column("change"),
        ),
        tuple(rows),
    )


def sets_table(report: Report) -> Table:
    """Accuracy on every prompt set, per group and over all."""
    groups = groups_of(before for before, _ in report.accuracy.values())
    caption = "Accuracy without → with the profile, %"
    rows: list[tuple[Cell, ...]] = []
    if len(groups) <= MOST_COLUMNS:
        for name, (before, after) in report.accuracy.items():
            cells = [_change_cell(before, after, group) for group in groups]
            rows.append((Cell(name), Cell(str(before.total)), *cells, _change_cell(before, after)))
        by_group = tuple(Column(group, code_heading=True) for group in groups)
        return Table(
            caption, (Column("prompt set", numeric=False), Column("prompts"), *by_group, Column(ALL)), tuple(rows)
        )
    for name, (before, after) in report.accuracy.items():
        for group in before.counts:
            total = before.counts[group][1]
            rows.append((Cell(name), Cell(group), Cell(str(total)), _change_cell(before, after, group)))
        rows.append((Cell(name), Cell(ALL), Cell(str(before.total)), _change_cell(before, after)))
    columns = (
        Column("prompt set", numeric=False),
        Column("sub-task", numeric=False, code=True),
        Column("prompts"),
        Column("accuracy"),
    )
    return Table(caption, columns, tuple(rows))


def side_effects_table(report: Report) -> Table:
    """How well other text is still predicted."""
    rows = []
    for text in report.side_effects.texts if report.side_effects is not None else ():
        past = is_beyond(text.nll_increase)
        rows.append(
            (
                Cell(text.name),
                Cell(str(text.tokens)),
                Cell(f"{text.nll_before:.4f}"),
                Cell(f"{text.nll_after:.4f}"),
                Cell(signed_percent(text.nll_increase), f"past {NLL_LIMIT:.0%}" if past else "", _tone_if(past)),
                Cell(percent(text.agreement)),
            )
        )
    return Table(
        "Prediction of other text: negative log-likelihood in nats per token, and how often the likeliest next token "
        "stays the same",
        (
            Column("text", numeric=False),
            Column("tokens"),
            Column("NLL without"),
            Column("NLL with"),
            Column("change"),
            Column("same next token, %"),
        ),
        tuple(rows),
    )


def methods_table(report: Report) -> Table:
    """Ways of choosing components, side by side."""
    groups = groups_of(method.accuracy for method in report.comparison)
    shown = groups if 1 < len(groups) <= MOST_COLUMNS else []
    has_held_out = any(method.held_out is not None for method in report.comparison)
    has_nll_increase = any(method.nll_increase is not None for method in report.comparison)
    rows = []
    for method in report.comparison:
        accuracy = method.accuracy
        cells = [Cell(method.name), Cell(str(method.components)), Cell(method.scale)]
        cells += [_share_cell(*accuracy.counts.get(group, (0, 0))) for group in shown]
        cells.append(_interval_cell(accuracy.correct, accuracy.total))
        if has_held_out:
            pooled = method.held_out
            cells.append(Cell("–") if pooled is None else _interval_cell(pooled.correct, pooled.total))
        if has_nll_increase:
            past = method.nll_increase is not None and is_beyond(method.nll_increase)
            increase = "–" if method.nll_increase is None else signed_percent(method.nll_increase)
            cells.append(Cell(increase, f"past {NLL_LIMIT:.0%}" if past else "", _tone_if(past)))
        rows.append(tuple(cells))
    columns = [Column("method", numeric=False), Column("components"), Column("scale")]
    columns += [Column(group, code_heading=True) for group in shown]
    columns.append(Column("test"))
    columns += [Column("held-out formats")] if has_held_out else []
    columns += [Column("NLL of neutral text")] if has_nll_increase else []
    return Table("Test accuracy of each method, % (in brackets: 95% interval)", tuple(columns), tuple(rows))


def _headline_row(group: str, correct: int, total: int, correct_after: int, total_after: int) -> tuple[Cell, ...]:
    changed = AccuracyChange(correct, correct_after, total)
    return (
        Cell(group),
        Cell(str(total)),
        _interval_cell(correct, total),
        _interval_cell(correct_after, total_after),
        Cell(changed.note or "0.0", "", changed.tone),
    )


def _change_cell(before: Accuracy, after: Accuracy, group: str | None = None) -> Cell:
    changed = accuracy_change(before, after, group)
    return Cell("–") if changed is None else changed.cell


def _share_cell(correct: int, total: int) -> Cell:
    return Cell(percent(correct / total) if total else "–")


def _interval_cell(correct: int, total: int) -> Cell:
    if not total:
        return Cell("–")
    low, high = Accuracy({"": (correct, total)}).interval()
    return Cell(percent(correct / total), f"[{percent(low / 100)}, {percent(high / 100)}]")


def _tone_if(worse: bool) -> Tone:
    return "worse" if worse else ""
