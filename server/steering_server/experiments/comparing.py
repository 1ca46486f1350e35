"""What the sums of an outcome say of an arm, and of its difference from the control."""

from collections.abc import Mapping

from steering_ab.statistics.sequential import Interval, Sample, mean_sequence, pooled_difference
from steering_server.experiments.aggregates import Cell
from steering_server.experiments.definition import Definition

Cells = Mapping[tuple[int, int], Cell]
"""Sums of a metric by period and arm."""


def whole(cells: Cells, index: int) -> Cell:
    """Return an arm's sums over all periods."""
    total = Cell()
    for (_, arm), cell in cells.items():
        if arm == index:
            total += cell
    return total


def strata(cells: Cells, index: int) -> list[tuple[Sample, Sample]]:
    """Return the samples of an arm and of the control, period by period."""
    numbers = sorted({period for period, _ in cells})
    nothing = Cell()
    return [(cells.get((number, index), nothing).sample, cells.get((number, 0), nothing).sample) for number in numbers]


def mean_interval(definition: Definition, cells: Cells, index: int) -> Interval:
    """Return the always-valid interval of an arm's mean of the primary outcome."""
    return mean_sequence(whole(cells, index).sample, definition.design, definition.outcome.bounds)


def difference_interval(definition: Definition, cells: Cells, index: int) -> tuple[float, Interval] | None:
    """Return the primary outcome of an arm minus that of the control, and its interval; None before there is enough."""
    difference, interval = pooled_difference(strata(cells, index), definition.design, definition.outcome.bounds)
    return None if difference is None else (difference, interval)
