"""The report of an experiment as it would have been at earlier times: each arm's outcome, and its difference from the
control, with their intervals.

An outcome counts from the time at which it was stored. The database makes the sums: for every unit the sums up to each
of some times, and from these by how much the sums over units grow from one time to the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Integer, case, cast, func, select

from steering_ab.statistics.sequential import Interval
from steering_server.experiments.aggregates import Cell
from steering_server.experiments.comparing import Cells, difference_interval, mean_interval, whole
from steering_server.experiments.database import Database
from steering_server.experiments.definition import Definition
from steering_server.experiments.store import Experiment
from steering_server.experiments.tables import outcomes

MAX_POINTS = 200


@dataclass(frozen=True)
class ArmPoint:
    """What was known of one arm."""

    name: str
    units: int
    """Units with an outcome."""
    mean: float | None
    interval: Interval


@dataclass(frozen=True)
class ComparisonPoint:
    """What was known of the difference of one arm from the control."""

    treatment: str
    control: str
    difference: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Point:
    """What was known at one time."""

    at: float
    arms: Sequence[ArmPoint]
    comparisons: Sequence[ComparisonPoint]


def make_series(database: Database, experiment: Experiment, points: int) -> list[Point]:
    """Return what was known at ``points`` times at equal distances, up to the latest outcome; none without outcomes.

    Raises:
        Unavailable: the database cannot be reached.
    """
    definition = experiment.definition
    with database.reading() as connection:
        first, last = _times(connection, experiment)
        if first is None or last is None:
            return []
        width = (last - first) / points
        grown = _growth(connection, experiment, first, width, points)
    if not width:
        return [_point(definition, last, grown[0])]
    known: dict[tuple[int, int], Cell] = {}
    series = []
    for number in range(points):
        for key, cell in grown.get(number, {}).items():
            known[key] = known.get(key, Cell()) + cell
        series.append(_point(definition, first + (number + 1) * width, known))
    return series


def _point(definition: Definition, at: float, cells: Cells) -> Point:
    names = definition.arm_names
    found = [difference_interval(definition, cells, index) for index in range(1, len(names))]
    return Point(
        at=at,
        arms=[
            ArmPoint(name, (sums := whole(cells, index)).units, sums.mean, mean_interval(definition, cells, index))
            for index, name in enumerate(names)
        ],
        comparisons=[
            ComparisonPoint(name, names[0], *(one if one is not None else (None, None)))
            for name, one in zip(names[1:], found, strict=True)
        ],
    )


def _of(experiment: Experiment) -> tuple[Any, Any]:
    column = outcomes.c
    return column.experiment_id == experiment.id, column.metric == experiment.definition.outcome.name


def _times(connection: Connection, experiment: Experiment) -> tuple[float | None, float | None]:
    query = select(func.min(outcomes.c.at), func.max(outcomes.c.at)).where(*_of(experiment))
    first, last = connection.execute(query).one()
    return first, last


def _growth(
    connection: Connection, experiment: Experiment, first: float, width: float, points: int
) -> Mapping[int, Mapping[tuple[int, int], Cell]]:
    """Return by how much the sums of each period and arm grow in each of ``points`` spans of ``width`` seconds."""
    column = outcomes.c
    passed = (column.at - first) / width if width else cast(0, Integer)
    if connection.dialect.name == "postgresql":
        passed = func.floor(passed)  # a cast rounds there, and cuts off in SQLite, which may have no floor
    whole_spans = cast(passed, Integer)
    span = case((whole_spans >= points, points - 1), else_=whole_spans).label("span")
    each = (
        select(
            column.arm,
            column.unit,
            func.min(column.period).label("period"),
            span,
            func.count().label("number"),
            func.sum(column.value + 0.0).label("total"),
        )
        .where(*_of(experiment))
        .group_by(column.arm, column.unit, span)
        .subquery()
        .c
    )
    unit = (each.arm, each.unit)
    so_far = (
        select(
            each.arm,
            # A unit belongs to the first period that it has, as in the report.
            func.min(each.period).over(partition_by=unit).label("period"),
            each.span,
            each.number,
            each.total,
            func.sum(each.number + 0.0).over(partition_by=unit, order_by=each.span).label("numbers"),
            func.sum(each.total).over(partition_by=unit, order_by=each.span).label("totals"),
        )
        .subquery()
        .c
    )
    number, total = so_far.numbers - so_far.number, so_far.totals - so_far.total  # before the span
    query = (
        select(
            so_far.span,
            so_far.period,
            so_far.arm,
            func.sum(case((number == 0, 1), else_=0)),
            func.sum(so_far.number),
            func.sum(so_far.total),
            func.sum(so_far.totals * so_far.totals - total * total),
            func.sum(so_far.totals * so_far.numbers - total * number),
            func.sum(so_far.numbers * so_far.numbers - number * number),
        )
        .group_by(so_far.span, so_far.period, so_far.arm)
        .order_by(so_far.span)
    )
    rows = connection.execute(query).all()
    return {
        at: {
            (period, arm): Cell(int(units), int(observations), *map(float, sums))
            for _, period, arm, units, observations, *sums in group
        }
        for at, group in groupby(rows, key=lambda row: int(row[0]))
    }
