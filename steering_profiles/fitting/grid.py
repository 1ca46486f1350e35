"""Choose how many components to scale and by how much: the (k, alpha) grid of RASteer (arXiv:2507.00322), on dev.

Many points of a grid are right on every dev prompt, and those at the edge of such a plateau fail elsewhere. So a point
counts as good as the worst of itself and its neighbours, the next smaller and the next larger alpha at the same k. The
best by that wins; among equals the one that disturbs least, ``k (alpha - 1)``, then the smaller k. A task's sub-tasks
have equally many dev prompts, so the fewest errors are also the best accuracy averaged over sub-tasks.

Every point is measured on the first slice of dev, and on the rest only while it can still matter, which the errors
so far decide exactly: the choice is that of the whole grid on the whole of dev.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steering_profiles.evaluation import Accuracy
from steering_profiles.fit_settings import ALPHA, TOP_K
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.task import Example, balanced

SLICE = 100
"""Prompts measured at a time."""


@dataclass(frozen=True)
class GridPoint:
    """One setting: the ``k`` best components scaled by ``alpha``. ``k`` = 0 is the plain model."""

    k: int
    alpha: float

    @property
    def total_change(self) -> float:
        """How much is changed in all."""
        return round(self.k * (self.alpha - 1), 9)


@dataclass(frozen=True)
class MeasuredPoint:
    """A point and its accuracy on as much of dev as it was measured on."""

    point: GridPoint
    accuracy: Accuracy

    @property
    def errors(self) -> int:
        """Wrong answers so far."""
        return self.accuracy.total - self.accuracy.correct


Measure = Callable[[GridPoint, Sequence[Example]], Accuracy]


def make_grid(top_k: Sequence[int] = TOP_K, alphas: Sequence[float] = ALPHA) -> list[GridPoint]:
    """Return every point of the grid once, in order; those with ``k`` = 0 are one and the same."""
    plain = [GridPoint(0, 1.0)] if 0 in top_k else []
    return plain + [GridPoint(k, alpha) for k in sorted(set(top_k)) if k for alpha in sorted(set(alphas))]


def search(
    points: Sequence[GridPoint], dev: Sequence[Example], measure: Measure, progress: Progress | None = None
) -> tuple[MeasuredPoint, list[MeasuredPoint]]:
    """Return the best of ``points`` on ``dev`` and what was measured of each, in the order given."""
    if not points:
        raise ValueError("the grid has no points")
    progress = progress or Silent()
    ledger = _Ledger(points, _balanced_slices(dev), measure)
    progress.stage("measuring the grid on a slice of dev", len(points))
    for point in points:
        ledger.measure_slice(point)
        progress.advance()

    progress.stage("measuring what can still win on all of dev", len(points))
    best: tuple[int, float, int] | None = None
    winner = points[0]
    for point in sorted(points, key=ledger.standing):
        while (best is None or ledger.standing(point) < best) and ledger.measure_more(point):
            pass
        if best is None or ledger.standing(point) < best:
            best, winner = ledger.standing(point), point
        progress.advance()
    return ledger.measured(winner), [ledger.measured(point) for point in points]


class _Ledger:
    """What is known of each point so far."""

    def __init__(self, points: Sequence[GridPoint], slices: Sequence[Sequence[Example]], measure: Measure) -> None:
        self._slices = slices
        self._measure = measure
        self._done = dict.fromkeys(points, 0)
        self._accuracy = {point: Accuracy({}) for point in points}
        self._judged_by = {point: [point, *_neighbours(point, points)] for point in points}

    def standing(self, point: GridPoint) -> tuple[int, float, int]:
        """Return how ``point`` compares, less being better; with more measured it can only get worse."""
        return max(self.measured(p).errors for p in self._judged_by[point]), point.total_change, point.k

    def measured(self, point: GridPoint) -> MeasuredPoint:
        return MeasuredPoint(point, self._accuracy[point])

    def measure_slice(self, point: GridPoint) -> None:
        self._accuracy[point] += self._measure(point, self._slices[self._done[point]])
        self._done[point] += 1

    def measure_more(self, point: GridPoint) -> bool:
        """Measure one more slice of whatever ``point`` is judged by; return whether there was one left."""
        unfinished = [p for p in self._judged_by[point] if self._done[p] < len(self._slices)]
        if unfinished:
            self.measure_slice(unfinished[0])
        return bool(unfinished)


def _neighbours(point: GridPoint, points: Sequence[GridPoint]) -> list[GridPoint]:
    alphas = sorted({p.alpha for p in points if p.k == point.k})
    at = alphas.index(point.alpha)
    return [GridPoint(point.k, alphas[i]) for i in (at - 1, at + 1) if 0 <= i < len(alphas)]


def _balanced_slices(dev: Sequence[Example]) -> list[list[Example]]:
    """Cut ``dev`` into slices in which every group has its share."""
    ordered = balanced(dev)
    return [ordered[start : start + SLICE] for start in range(0, len(ordered), SLICE)]
