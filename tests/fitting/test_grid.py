"""The search over k and alpha, compared with an exhaustive search."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.evaluation import Accuracy
from steering_profiles.fitting.grid import ALPHA, SLICE, TOP_K, GridPoint, make_grid, search_grid
from steering_profiles.tasks.task import Example

DEV = [Example(group, "", (1,), 1) for group in "ab" for _ in range(125)]


def chooser(errors: dict[GridPoint, int], calls: list[GridPoint] | None = None):
    """Return a measurement in which each point makes the number of errors that ``errors`` gives."""
    wrong = {point: {id(example) for example in DEV[-count:]} if count else set() for point, count in errors.items()}

    def measure(point: GridPoint, examples: Sequence[Example]) -> Accuracy:
        if calls is not None:
            calls.append(point)
        groups = {example.group for example in examples}
        return Accuracy(
            {
                group: (
                    sum(e.group == group and id(e) not in wrong[point] for e in examples),
                    sum(e.group == group for e in examples),
                )
                for group in groups
            }
        )

    return measure


def exhaustive(errors: dict[GridPoint, int]) -> GridPoint:
    """Return the best point by the rule: worst of a point and its neighbours in alpha, then total change, then k."""

    def standing(point: GridPoint) -> tuple[int, float, int]:
        row = sorted((p for p in errors if p.k == point.k), key=lambda p: p.alpha)
        at = row.index(point)
        return max(errors[p] for p in row[max(0, at - 1) : at + 2]), point.total_change, point.k

    return min(errors, key=standing)


POINTS = make_grid((0, 5, 10), (1.1, 1.2, 1.3, 1.4))


def test_the_default_grid_is_the_papers():
    grid = make_grid()
    assert len(grid) == 1 + (len(TOP_K) - 1) * len(ALPHA)
    assert (TOP_K, ALPHA) == ((0, 5, 10, 20, 30, 40, 50, 60), (1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0))


@given(st.lists(st.integers(0, 250), min_size=len(POINTS), max_size=len(POINTS)))
def test_the_choice_is_that_of_the_whole_grid_on_all_of_dev(counts: list[int]):
    errors = dict(zip(POINTS, counts, strict=True))
    best, _ = search_grid(POINTS, DEV, chooser(errors))
    assert best.point == exhaustive(errors)
    assert best.errors == errors[best.point]
    assert best.accuracy.total == len(DEV)


def test_a_point_inside_a_plateau_is_preferred_to_one_at_its_edge():
    row = make_grid((5,), (1.1, 1.2, 1.3, 1.4))
    errors = dict(zip(row, [9, 0, 0, 0], strict=True))
    best, _ = search_grid(row, DEV, chooser(errors))
    assert best.point == GridPoint(5, 1.3)


def test_of_equal_points_the_one_with_the_smallest_total_change_is_chosen():
    best, _ = search_grid(POINTS, DEV, chooser(dict.fromkeys(POINTS, 0)))
    assert best.point == GridPoint(0, 1.0)


def test_points_that_can_no_longer_win_are_not_measured_further():
    errors = {point: 0 if point.k == 0 else 240 for point in POINTS}
    calls: list[GridPoint] = []
    _, measured = search_grid(POINTS, DEV, chooser(errors, calls))
    assert all(m.accuracy.total == SLICE for m in measured if m.point.k)


def test_every_point_is_returned_with_its_measurements():
    _, measured = search_grid(POINTS, DEV, chooser(dict.fromkeys(POINTS, 3)))
    assert [m.point for m in measured] == POINTS
    assert all(m.accuracy.total >= SLICE for m in measured)


def test_an_empty_grid_is_rejected():
    with pytest.raises(ValueError, match="no points"):
        search_grid([], DEV, chooser({}))
