"""Sums over exposures and outcomes, made by the database.

A unit can have several exposures and outcomes, which depend on each other. So sums are first made for each unit, and
the units are what is counted: the mean is a ratio of sums over units, with the variance of such a ratio (the delta
method). A unit belongs to the first period in which its arm had it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Integer, Select, Subquery, cast, func, select

from steering_ab.statistics.sequential import Sample
from steering_server.experiments.definition import BUILTIN, Builtin
from steering_server.experiments.tables import exposures, lost_exposures, outcomes


@dataclass(frozen=True)
class Cell:
    """Sums over the units of one arm in one period. Of each unit there is a sum of values and their number."""

    units: int = 0
    observations: int = 0
    total: float = 0.0
    squares: float = 0.0
    """Of the units' sums."""
    products: float = 0.0
    """Of the units' sums and numbers."""
    squared_numbers: float = 0.0

    def __add__(self, other: "Cell") -> "Cell":
        """Return the sums over both."""
        return Cell(*(one + another for one, another in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def mean(self) -> float | None:
        """The mean of all values; None if there are none."""
        return self.total / self.observations if self.observations else None

    @property
    def sample(self) -> Sample:
        """What the units say about the mean."""
        mean = self.mean
        if mean is None:
            return Sample(0, 0.0, 0.0)
        residuals = self.squares - 2 * mean * self.products + mean**2 * self.squared_numbers
        return Sample(self.units, mean, max(0.0, self.units * residuals / self.observations**2))


@dataclass(frozen=True)
class Aggregates:
    """Everything that a report is made of."""

    by_metric: Mapping[str, Mapping[tuple[int, int], Cell]]
    """Sums by metric, and then by period and arm."""
    exposures: Mapping[int, int]
    """Number of exposures by arm."""
    units: Mapping[int, int]
    """Number of units by arm."""
    first_units: Mapping[tuple[int, int], int]
    """Number of units by the period in which they were first seen, and the arm that they had."""
    lost: int

    def cells(self, metric: str) -> Mapping[tuple[int, int], Cell]:
        """Return the sums of a metric by period and arm."""
        return self.by_metric.get(metric, {})


def read_aggregates(connection: Connection, experiment_id: int, metrics: Sequence[str]) -> Aggregates:
    """Return the sums of what the server measures and of the clients' ``metrics``."""
    by_metric = {metric: _cells(connection, _outcome_units(experiment_id, metric)) for metric in metrics}
    by_metric |= {metric: _cells(connection, _exposure_units(experiment_id, metric)) for metric in BUILTIN}
    of = exposures.c.experiment_id == experiment_id
    totals = select(exposures.c.arm, func.count(), func.count(exposures.c.unit.distinct())).where(of)
    rows = connection.execute(totals.group_by(exposures.c.arm)).all()
    return Aggregates(
        by_metric=by_metric,
        exposures={arm: number for arm, number, _ in rows},
        units={arm: number for arm, _, number in rows},
        first_units=_first_units(connection, experiment_id),
        lost=connection.execute(
            select(func.coalesce(func.sum(lost_exposures.c.number), 0)).where(
                lost_exposures.c.experiment_id == experiment_id
            )
        ).scalar_one(),
    )


def _cells(connection: Connection, units: Subquery) -> dict[tuple[int, int], Cell]:
    column = units.c
    number = column.number + 0.0  # products of integers could exceed their range
    query = select(
        column.period,
        column.arm,
        func.count(),
        func.sum(column.number),
        func.sum(column.total),
        func.sum(column.total * column.total),
        func.sum(column.total * number),
        func.sum(number * number),
    ).group_by(column.period, column.arm)
    return {
        (period, arm): Cell(int(count), int(observations), *map(float, sums))
        for period, arm, count, observations, *sums in connection.execute(query)
    }


def _outcome_units(experiment_id: int, metric: str) -> Subquery:
    of = (outcomes.c.experiment_id == experiment_id, outcomes.c.metric == metric)
    return _per_unit(select(*_columns(outcomes.c, outcomes.c.value)).where(*of), outcomes.c)


def _exposure_units(experiment_id: int, metric: Builtin) -> Subquery:
    column = exposures.c
    values: dict[Builtin, Any] = {
        "latency": column.latency,
        "time_to_first_token": column.time_to_first_token,
        "errors": cast(column.failed, Integer),
        "completion_tokens": column.completion_tokens,
    }
    of = [column.experiment_id == experiment_id, values[metric].is_not(None)]
    if metric == "errors":
        of.append(column.finish_reason != "abort")  # that the client left is no failure of the server
    else:
        of.append(column.finish_reason.in_(("stop", "length")))  # the others have no whole answer
    return _per_unit(select(*_columns(column, values[metric])).where(*of), column)


def _columns(columns: Any, value: Any) -> tuple[Any, ...]:
    return (
        columns.arm,
        func.min(columns.period).label("period"),
        func.count().label("number"),
        func.sum(value + 0.0).label("total"),
    )


def _per_unit(query: Select[Any], columns: Any) -> Subquery:
    return query.group_by(columns.arm, columns.unit).subquery()


def _first_units(connection: Connection, experiment_id: int) -> dict[tuple[int, int], int]:
    column = exposures.c
    of = column.experiment_id == experiment_id
    first = select(column.unit, func.min(column.period).label("period")).where(of).group_by(column.unit).subquery()
    query = (
        select(column.period, column.arm, func.count(column.unit.distinct()))
        .join(first, (first.c.unit == column.unit) & (first.c.period == column.period))
        .where(of)
        .group_by(column.period, column.arm)
    )
    return {(period, arm): number for period, arm, number in connection.execute(query)}
