"""The part of a report on a search that chose settings of the final layer for each group alone."""

from collections.abc import Iterator, Sequence

from steering_profiles.fitting.group_candidates import GroupCandidate, GroupChoice
from steering_profiles.reports.tables import Cell, Column, Table, Tone
from steering_profiles.reports.tempered import nats, points
from steering_profiles.reports.text import number

_SHOWN = 5
"""Candidates of a group that are shown: those that gain most."""


def group_sentences(choices: Sequence[GroupChoice]) -> Iterator[tuple[str, Tone]]:
    """Yield sentences on how the settings were chosen, and on the groups that are left as they are."""
    folds = sorted({choice.folds for choice in choices})
    yield (
        "Each sub-task has settings and an intercept of its own, chosen on its train and dev prompts by "
        f"cross-validation ({' or '.join(map(str, folds))} folds by answer): the smallest NLL of those that lower it "
        "by more than its 95% interval and take no accuracy beyond the limit, each at the temperature that is best "
        "for it.",
        "",
    )
    left = [choice.group for choice in choices if choice.chosen is None]
    if left:
        yield f"No setting is allowed for {', '.join(left)}: nothing is changed there.", "worse"


def choices_of_groups_table(choices: Sequence[GroupChoice]) -> Table:
    """Return what was chosen for each group, and how it changed the group's train and dev prompts."""
    rows = []
    for choice in choices:
        found = choice.chosen
        settings = [Cell("–")] * 5 if found is None else _cells(found)
        rows.append((Cell(choice.group), Cell(str(choice.prompts)), Cell(number(choice.temperature)), *settings))
    return Table(
        "Settings by sub-task, with the changes by cross-validation on train and dev: NLL in nats, accuracy in points, "
        "with 95% intervals over facts",
        (
            Column("sub-task", numeric=False),
            Column("prompts"),
            Column("temperature without"),
            *_COLUMNS,
        ),
        tuple(rows),
    )


def best_candidates_table(choices: Sequence[GroupChoice]) -> Table:
    """Return the candidates of each group that gain most, with the reason why one may not be chosen."""
    rows = []
    for choice in choices:
        for one in choice.measured[:_SHOWN]:
            chosen = one is choice.chosen
            rows.append((Cell(choice.group), *_cells(one), Cell("chosen" if chosen else "")))
    return Table(
        f"The {_SHOWN} settings with the smallest NLL, by sub-task",
        (Column("sub-task", numeric=False), *_COLUMNS, Column("", numeric=False)),
        tuple(rows),
    )


_COLUMNS = (
    Column("self-only attention"),
    Column("lambda"),
    Column("intercept", numeric=False),
    Column("change of NLL"),
    Column("change in points"),
)


def _cells(one: GroupCandidate) -> list[Cell]:
    candidate, change = one.candidate, one.change
    return [
        Cell(number(candidate.self_only_attention)),
        Cell(number(candidate.intercept_scale)),
        Cell(candidate.source or "–"),
        Cell(nats(change.nll)),
        Cell(points(change.accuracy)),
    ]
