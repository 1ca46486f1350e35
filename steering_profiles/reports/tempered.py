"""The parts of a report on what a profile knows: changes where both sides have a tuned temperature, group by group."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from steering_profiles.evaluation.calibration import CalibrationComparison
from steering_profiles.evaluation.tempered import PairedChange, TemperedChange
from steering_profiles.fitting.final_layer_candidates import MeasuredCandidate
from steering_profiles.reports.tables import ALL, Cell, Column, Table, Tone
from steering_profiles.reports.text import minus, number, percent

_Row = tuple[str, str, TemperedChange]
"""Prompt set, group, change."""


def tempered_sentences(sets: Mapping[str, CalibrationComparison]) -> Iterator[tuple[str, Tone]]:
    """Yield sentences on the first of ``sets``, which is test, and on the groups of all of them."""
    first = next((one.both_tempered for one in sets.values()), None)
    if first is None:
        return
    compared, pooled = next(iter(sets.values())), first.pooled
    yield (
        f"With the temperature that dev prefers on both sides ({number(compared.temperature)} without the profile, "
        f"{number(first.temperature)} with it), the NLL on test changes by {nats(pooled.nll)} and accuracy by "
        f"{points(pooled.accuracy)} points.",
        "",
    )
    if pooled.nll.mean >= 0:
        yield "A tuned temperature does as well as the profile, or better: what it changes is confidence.", "worse"
    rows = [row for row in _rows(sets) if row[1] != ALL]
    for name, of_set in groupby(rows, key=lambda row: row[0]):
        changes = {group: change for _, group, change in of_set}
        better = sum(change.is_better for change in changes.values())
        worse = [group for group, change in changes.items() if change.is_worse]
        beyond = (
            f"worse by more than its interval: {', '.join(worse)}"
            if worse
            else "none is worse by more than its interval"
        )
        yield (
            f"{name}: NLL and accuracy are both better on {better} of {len(changes)} sub-tasks; {beyond}.",
            "worse" if worse else "",
        )


def tempered_table(sets: Mapping[str, CalibrationComparison]) -> Table:
    """Return the changes of every group of every set, those that are worse first."""
    rows = sorted(_rows(sets), key=lambda row: (not row[2].is_worse, -row[2].nll.mean))
    return Table(
        "Without and with the profile, each at its temperature tuned on dev: NLL of the correct answer in nats, "
        "accuracy in percent, and their changes with 95% intervals over facts; what is worse by more than its "
        "interval first",
        (
            Column("prompts", numeric=False),
            Column("sub-task", numeric=False),
            Column("number"),
            Column("NLL without"),
            Column("change of NLL"),
            Column("accuracy without"),
            Column("change in points"),
        ),
        tuple(
            (
                Cell(name),
                Cell(group),
                Cell(str(change.prompts)),
                Cell(f"{change.nll_before:.3f}"),
                Cell(nats(change.nll), *_note(change.nll.low > 0, change.nll.high < 0)),
                Cell(percent(change.accuracy_before)),
                Cell(points(change.accuracy), *_note(change.accuracy.high < 0, change.accuracy.low > 0)),
            )
            for name, group, change in rows
        ),
    )


def choices_table(grid: Sequence[MeasuredCandidate], chosen: MeasuredCandidate) -> Table | None:
    """Return, for every group of dev and of each format, the chosen candidate beside the best one for it alone.

    None if the plain model was chosen and nothing else could be measured.
    """
    measured = [(one, one.other.changes) for one in grid if one.other is not None and one.other.changes]
    if not measured:
        return None
    of_chosen = {} if chosen.other is None else chosen.other.changes
    rows = []
    for name, groups in measured[0][1].items():
        for group in groups:
            best, changes = min(measured, key=lambda one: one[1][name][group].nll.mean)
            alone = changes[name][group]
            kept = of_chosen.get(name, {}).get(group)
            gains = alone.nll.mean < 0
            rows.append(
                (
                    Cell(name),
                    Cell(group),
                    Cell(f"{alone.nll_before:.3f}"),
                    Cell("–" if kept is None else nats(kept.nll)),
                    Cell("–" if kept is None else points(kept.accuracy)),
                    Cell(str(best.candidate) if gains else "the unsteered model"),
                    Cell(nats(alone.nll) if gains else "–"),
                    Cell(points(alone.accuracy) if gains else "–"),
                )
            )
    return Table(
        "Dev by prompts and sub-task, with temperatures tuned for both: the NLL without the profile, the changes with "
        "what was chosen, and the setting that would be best for these prompts alone, whatever it does to others",
        (
            Column("prompts", numeric=False),
            Column("sub-task", numeric=False),
            Column("NLL without"),
            Column("chosen: change of NLL"),
            Column("in points"),
            Column("best for it alone", numeric=False),
            Column("change of NLL"),
            Column("in points"),
        ),
        tuple(rows),
    )


def _rows(sets: Mapping[str, CalibrationComparison]) -> Iterator[_Row]:
    for name, compared in sets.items():
        if compared.both_tempered is not None:
            yield name, ALL, compared.both_tempered.pooled
            groups = compared.both_tempered.groups
            yield from ((name, group, change) for group, change in groups.items() if len(groups) > 1)


def _note(worse: bool, better: bool) -> tuple[str, Tone]:
    return ("worse", "worse") if worse else ("better", "better") if better else ("", "")


def nats(change: PairedChange) -> str:
    """Return a change of the NLL with its interval: ``−0.160 ± 0.067``."""
    return _signed(change.mean, change.half, 3)


def points(change: PairedChange) -> str:
    """Return a change of a share in percentage points, with its interval: ``+5.8 ± 2.1``."""
    return _signed(100 * change.mean, None if change.half is None else 100 * change.half, 1)


def _signed(mean: float, half: float | None, digits: int) -> str:
    interval = "" if half is None else f" ± {half:.{digits}f}"
    return minus(f"{mean:+.{digits}f}{interval}")
