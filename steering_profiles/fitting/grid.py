"""Search the (k, alpha) grid of RASteer (arXiv:2507.00322) on dev: the number of components and their common scale.

Many points of a grid make no error on dev, and points at the edge of such a plateau generalise badly. So a point is
judged by the largest number of errors among itself and its neighbours, the next smaller and the next larger alpha at
the same k. The point with the fewest errors is chosen; of equal points the one with the smallest total change,
``k (alpha - 1)``, then the one with the smaller k. A task's sub-tasks have equally many dev prompts, so fewest errors
also means the best accuracy averaged over sub-tasks.

Every point is measured on the first slice of dev. It is measured on further slices only while it can still be chosen:
the errors of a point can only grow, so the result is the same as with the whole grid on all of dev.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steering_profiles.evaluation import Accuracy
from steering_profiles.fit_settings import ALPHA, TOP_K
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.task import Example, balanced

SLICE = 100
"""Number of dev prompts in a slice."""


@dataclass(frozen=True)
class GridPoint:
    """A point of the grid: the ``k`` best components scaled by ``alpha``. ``k`` = 0 is the plain model."""

    k: int
    alpha: float

    @property
    def total_change(self) -> float:
        """Total change (L1): the sum of ``|scale - 1|`` over the components."""
        return round(self.k * (self.alpha - 1), 9)


@dataclass(frozen=True)
class MeasuredPoint:
    """A point and its accuracy on the dev prompts that it was measured on."""

    point: GridPoint
    accuracy: Accuracy

    @property
    def errors(self) -> int:
        """Number of wrong answers."""
        return self.accuracy.total - self.accuracy.correct


Measure = Callable[[GridPoint, Sequence[Example]], Accuracy]


def make_grid(top_k: Sequence[int] = TOP_K, alphas: Sequence[float] = ALPHA) -> list[GridPoint]:
    """Return the points of the grid in order; there is one point with ``k`` = 0."""
    plain = [GridPoint(0, 1.0)] if 0 in top_k else []
    return plain + [GridPoint(k, alpha) for k in sorted(set(top_k)) if k for alpha in sorted(set(alphas))]


def search_grid(
    points: Sequence[GridPoint], dev: Sequence[Example], measure: Measure, progress: Progress | None = None
) -> tuple[MeasuredPoint, list[MeasuredPoint]]:
    """Return the best of ``points`` on ``dev``, and the measurements of all points in the given order.

    Raises:
        ValueError: there are no points.
    """
    if not points:
        raise ValueError("the grid has no points")
    progress = progress or Silent()
    measurements = _Measurements(points, _balanced_slices(dev), measure)
    progress.stage("measuring the grid on a slice of dev", len(points))
    for point in points:
        measurements.measure_slice(point)
        progress.advance()

    progress.stage("measuring the remaining points on all of dev", len(points))
    best: tuple[int, float, int] | None = None
    winner = points[0]
    for point in sorted(points, key=measurements.standing):
        while (best is None or measurements.standing(point) < best) and measurements.measure_more(point):
            pass
        if best is None or measurements.standing(point) < best:
            best, winner = measurements.standing(point), point
        progress.advance()
    return measurements.measured(winner), [measurements.measured(point) for point in points]


class _Measurements:
    """The measurements of each point so far."""

    def __init__(self, points: Sequence[GridPoint], slices: Sequence[Sequence[Example]], measure: Measure) -> None:
        self._slices = slices
        self._measure = measure
        self._done = dict.fromkeys(points, 0)
        self._accuracy = {point: Accuracy({}) for point in points}
        self._judged_by = {point: [point, *_neighbours(point, points)] for point in points}

    def standing(self, point: GridPoint) -> tuple[int, float, int]:
        """Return the sort key of ``point``, the best point first; it can only grow with more measurements."""
        return max(self.measured(p).errors for p in self._judged_by[point]), point.total_change, point.k

    def measured(self, point: GridPoint) -> MeasuredPoint:
        return MeasuredPoint(point, self._accuracy[point])

    def measure_slice(self, point: GridPoint) -> None:
        self._accuracy[point] += self._measure(point, self._slices[self._done[point]])
        self._done[point] += 1

    def measure_more(self, point: GridPoint) -> bool:
        """Measure one more slice of ``point`` or a neighbour; return whether any slice was left."""
        unfinished = [p for p in self._judged_by[point] if self._done[p] < len(self._slices)]
        if unfinished:
            self.measure_slice(unfinished[0])
        return bool(unfinished)


def _neighbours(point: GridPoint, points: Sequence[GridPoint]) -> list[GridPoint]:
    alphas = sorted({p.alpha for p in points if p.k == point.k})
    at = alphas.index(point.alpha)
    return [GridPoint(point.k, alphas[i]) for i in (at - 1, at + 1) if 0 <= i < len(alphas)]


def _balanced_slices(dev: Sequence[Example]) -> list[list[Example]]:
    """Cut ``dev`` into slices in which the groups are evenly represented."""
    ordered = balanced(dev)
    return [ordered[start : start + SLICE] for start in range(0, len(ordered), SLICE)]
