"""What kept a fit from harm: the limit, what it refused, and the groups of dev and of the choosing formats."""

from collections.abc import Iterator

from steering_profiles.fitting.no_harm import GroupChange
from steering_profiles.reports.report import NoHarm
from steering_profiles.reports.tables import Cell, Column, Table, Tone
from steering_profiles.reports.text import number, percent
from steering_profiles.schema import Profile

_NAMED = 3


def no_harm_sentences(found: NoHarm, profile: Profile) -> Iterator[str]:
    """Yield the limit and the conditions, the rounds, what was better and refused, and the groups that lose."""
    conditions = profile.conditions
    where = "at every position" if not conditions else "where " + ", and others where ".join(map(str, conditions))
    yield (
        "No group of dev and of the choosing formats, whose prompts move no scale, may lose more than "
        f"{number(found.max_lost)} points. The chosen scales apply {where}."
    )
    for place, said in enumerate(found.rounds, start=1):
        yield f"Round {place}: {said}."
    if found.refused:
        more = len(found.refused) - _NAMED
        shown = "; ".join(found.refused[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        yield f"Better on the validation set, and not allowed: {shown}."
    else:
        yield "Nothing that was better on the validation set was refused: the limit did not bind."
    if found.changes:
        losing = [str(change) for change in found.changes if change.lost > 0]
        yield f"Groups that lose: {'; '.join(losing)}." if losing else "No group of them loses."


def no_harm_table(found: NoHarm) -> Table:
    """Return the accuracy of every group of the choosing formats, the largest loss first."""
    return Table(
        "Accuracy on dev and the choosing formats, %, the largest loss first",
        (
            Column("format", numeric=False),
            Column("sub-task", numeric=False, code=True),
            Column("prompts"),
            Column("without"),
            Column("with"),
            Column("points"),
        ),
        tuple(_row(change) for change in found.changes),
    )


def _row(change: GroupChange) -> tuple[Cell, ...]:
    tone: Tone = "worse" if change.lost > 0 else "better" if change.lost < 0 else ""
    return (
        Cell(change.format),
        Cell(change.group),
        Cell(str(change.total)),
        Cell(percent(change.before / change.total)),
        Cell(percent(change.after / change.total)),
        Cell(f"{-change.lost:+.1f}" if change.lost else "0.0", tone=tone),
    )
