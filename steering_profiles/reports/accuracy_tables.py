"""Tables of accuracy."""

from collections.abc import Iterable
from dataclasses import dataclass

from steering_profiles.evaluation.accuracy import Accuracy, least_change
from steering_profiles.reports.report import Report
from steering_profiles.reports.tables import ALL, MOST_COLUMNS, Cell, Column, Table, Tone
from steering_profiles.reports.text import minus, percent, signed_percent
from steering_profiles.side_effect_warnings import NLL_LIMIT, exceeds_limit


@dataclass(frozen=True)
class AccuracyChange:
    """Number of correct answers without and with the profile on the same prompts."""

    before: int
    after: int
    total: int

    @property
    def tone(self) -> Tone:
        """Direction of the change, by the counts rather than by rounded percentages."""
        return "worse" if self.after < self.before else "better" if self.after > self.before else ""

    @property
    def cell(self) -> Cell:
        """Cell with the percentages and the change: ``58.0 → 100.0 +42.0``."""
        if not self.total:
            return Cell("–")
        before, after = percent(self.before / self.total), percent(self.after / self.total)
        return Cell(f"{before} → {after}", self.note, self.tone)

    @property
    def note(self) -> str:
        """Change in percentage points: ``+42.0``, ``−8.0 worse``, or empty if there is none."""
        points = minus(f"{100 * (self.after - self.before) / self.total:+.1f}") if self.total else ""
        return {"better": points, "worse": f"{points} worse", "": ""}[self.tone]


def accuracy_change(before: Accuracy, after: Accuracy, group: str | None = None) -> AccuracyChange | None:
    """Return the change of ``group``, or of all groups pooled if it is None; None if a set does not have the group."""
    if group is None:
        return AccuracyChange(before.correct, after.correct, before.total)
    if group not in before.counts or group not in after.counts:
        return None
    correct, total = before.counts[group]
    return AccuracyChange(correct, after.counts[group][0], total)


def groups_of(accuracies: Iterable[Accuracy]) -> list[str]:
    """Return the groups of all ``accuracies`` in order of their first appearance."""
    return list(dict.fromkeys(group for accuracy in accuracies for group in accuracy.counts))


def headline_table(name: str, before: Accuracy, after: Accuracy) -> Table:
    """Return the accuracy per sub-task with 95% confidence intervals."""
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
    """Return the accuracy on each prompt set, per group and pooled; the set whose group loses most comes first."""
    groups = groups_of(before for before, _ in report.accuracy.values())
    caption = "Accuracy without → with the profile, %, the largest loss of a sub-task first"
    sets = sorted(report.accuracy.items(), key=lambda named: least_change(*named[1]))
    rows: list[tuple[Cell, ...]] = []
    if len(groups) <= MOST_COLUMNS:
        for name, (before, after) in sets:
            cells = [_change_cell(before, after, group) for group in groups]
            rows.append((Cell(name), Cell(str(before.total)), *cells, _change_cell(before, after)))
        by_group = tuple(Column(group, code_heading=True) for group in groups)
        return Table(
            caption, (Column("prompt set", numeric=False), Column("prompts"), *by_group, Column(ALL)), tuple(rows)
        )
    for name, (before, after) in sets:
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


def methods_table(report: Report) -> Table:
    """Return the results of each method of choosing components."""
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
            above = method.nll_increase is not None and exceeds_limit(method.nll_increase)
            increase = "–" if method.nll_increase is None else signed_percent(method.nll_increase)
            cells.append(Cell(increase, f"above {NLL_LIMIT:.0%}" if above else "", _tone_if(above)))
        rows.append(tuple(cells))
    columns = [Column("method", numeric=False), Column("components"), Column("scale")]
    columns += [Column(group, code_heading=True) for group in shown]
    columns.append(Column("test"))
    columns += [Column("held-out formats")] if has_held_out else []
    columns += [Column("NLL increase")] if has_nll_increase else []
    caption = (
        "Accuracy of each method on test and on the held-out formats pooled, % (in brackets: 95% confidence interval)"
        if has_held_out
        else "Test accuracy of each method, % (in brackets: 95% confidence interval)"
    )
    caption += "; NLL increase is that of the most affected other text" if has_nll_increase else ""
    return Table(caption, tuple(columns), tuple(rows))


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
