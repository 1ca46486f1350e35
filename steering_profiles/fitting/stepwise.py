"""Choose components and a scale for each, in small steps, by what the right answers gain: a search beyond RASteer's.

The paper's order takes the k best of a ranking that looks at each component alone, and scales them all alike; from one
k to the next the accuracy can jump from nothing to everything and back. Here every step moves the scales of a few
components by a little, up or, where that was too much, back down: those that the answers of some training prompts gain
most from, given all that has been moved before, with what other text loses by it taken off. A backward pass gives both
for all components at once (:mod:`steering_profiles.fitting.gradient`).

The course of the search is a path from the plain model on. The point of it is chosen on dev and, where the task has
them, on prompts in other shapes; text that has nothing to do with the task says how far a point may go. As in the grid
a point counts as good as the worst of itself and its neighbours, and of equals the one that disturbs least is chosen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import JsonValue

from steering_profiles.evaluation import Accuracy
from steering_profiles.evaluation.windows import Window
from steering_profiles.fitting.components import Component, Kind, Scales
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.fitting.journal import Journal
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.task import Example, Task, balanced, round_robin

_ROUNDING = 1e-9


@dataclass(frozen=True)
class StepwiseSettings:
    """How far the search goes, and in what steps.

    Raises:
        ValueError: a setting with which nothing can be searched; the message names it.
    """

    step: float = 0.1
    """By how much a scale is moved at a time."""
    at_once: int = 2
    """How many components are moved in one step."""
    prompts: int = 64
    """That each step looks at, half of them in the task's other shapes if it has such."""
    windows: int = 4
    """Windows of other text that each step looks at."""
    text_weight: float = 5.0
    """How much a nat of the other text's NLL counts, in nats of the answers' lead."""
    steps: int = 60
    measured_every: int = 5
    most_components: int = 20
    most_scale: float = 1.5
    most_drift: float = 0.01
    """By how much the NLL of other text may rise, as a share of what it was."""
    patience: int = 4
    """Measured points without a mistake after which the search ends."""

    def __post_init__(self) -> None:
        for name in ("at_once", "prompts", "windows", "steps", "measured_every", "most_components", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: whole numbers from 1")
        if not 0 < self.step < math.inf:
            raise ValueError(f"step is {self.step:g}; allowed: finite numbers above 0")
        if not 1 + self.step <= self.most_scale + _ROUNDING < math.inf:
            raise ValueError(f"max scale is {self.most_scale:g}; allowed: finite numbers from {1 + self.step:g}")


@dataclass(frozen=True)
class PathPoint:
    """Where the search was after ``step`` steps."""

    step: int
    scales: Scales
    accuracy: Accuracy
    """On dev and the task's other shapes."""
    drift: float
    """How much the NLL of other text rose, as a share of what it was."""

    @property
    def errors(self) -> int:
        """Wrong answers."""
        return self.accuracy.asked - self.accuracy.right

    @property
    def disturbance(self) -> float:
        """How much is changed in all: the sum of what the scales differ from 1 by."""
        return round(sum(abs(scale - 1) for scale in self.scales.values()), 9)


Measure = Callable[[Scales], tuple[Accuracy, float]]
"""Accuracy on dev and the other shapes, and drift."""


def search_path(
    loaded: LoadedModel,
    task: Task,
    texts: Sequence[Window],
    kinds: Sequence[Kind],
    measure: Measure,
    *,
    settings: StepwiseSettings = StepwiseSettings(),
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[PathPoint]:
    """Return the points of the path, the plain model first. ``texts`` have nothing to do with the task."""
    journal = Journal() if journal is None else journal  # an empty one is false
    progress = progress or Silent()
    lessons = _Lessons(task, texts, settings)
    scales: dict[Component, float] = {}
    path: list[PathPoint] = []

    def measure_here(step: int) -> None:
        def made() -> dict[str, JsonValue]:
            accuracy, drift = measure(scales)
            return {"accuracy": accuracy.to_json(), "drift": drift}

        found: Any = journal.recall(f"path {step}", made)
        path.append(PathPoint(step, dict(scales), Accuracy.from_json(found["accuracy"]), found["drift"]))

    progress.stage("moving scales step by step", settings.steps)
    measure_here(0)
    with DifferentiableScales(loaded, kinds) as model:
        for step in range(1, settings.steps + 1):
            moves = journal.recall(f"step {step}", partial(_best_moves, model, lessons, step - 1, scales, settings))
            for kind, layer, index, by in moves:
                component = Component(kind, layer, index)
                scales[component] = round(scales.get(component, 1.0) + by, 6)
                if scales[component] == 1:
                    del scales[component]
            progress.advance()
            if step % settings.measured_every == 0 or not moves:
                measure_here(step)
            if not moves or _is_over(path, settings):
                break
    return path


def choose(path: Sequence[PathPoint], most_drift: float) -> PathPoint:
    """Return the best point of a path among those whose drift is at most ``most_drift``; the plain model always is."""

    def standing(index: int) -> tuple[int, float]:
        around = path[max(0, index - 1) : index + 2]
        return max(point.errors for point in around), path[index].disturbance

    return path[min((i for i, point in enumerate(path) if i == 0 or point.drift <= most_drift), key=standing)]


class _Lessons:
    """What each step looks at: prompts and windows of text, going round, so that all have their turn."""

    def __init__(self, task: Task, texts: Sequence[Window], settings: StepwiseSettings) -> None:
        self._train = balanced(task.train)
        self._shapes = round_robin([balanced(examples) for examples in task.shapes.values()])
        self._texts = texts
        self._settings = settings

    def prompts(self, turn: int) -> list[Example]:
        count = self._settings.prompts
        in_shapes = _turn(self._shapes, turn, count // 2)
        return _turn(self._train, turn, count - len(in_shapes)) + in_shapes

    def texts(self, turn: int) -> list[Window]:
        return _turn(self._texts, turn, self._settings.windows)


def _best_moves(
    model: DifferentiableScales, lessons: _Lessons, turn: int, scales: Scales, settings: StepwiseSettings
) -> list[tuple[Kind, int, int, float]]:
    """Return the components to move and by how much, those with the largest gain; fewer where few gain anything."""
    answers, texts = model.of_answers(lessons.prompts(turn), scales), model.of_texts(lessons.texts(turn), scales)
    moves: list[tuple[float, Component, float]] = []
    for kind, of_answers in answers.by_kind.items():
        slope = of_answers + settings.text_weight * texts.by_kind[kind]
        # New ones, at most as many as are wanted, after those that have been moved already.
        gains, places = (-slope.flatten()).topk(min(slope.numel(), len(scales) + settings.at_once))
        for gain, place in zip(gains.tolist(), places.tolist(), strict=True):
            component = Component(kind, *divmod(place, slope.shape[1]))
            if component not in scales:
                moves.append((gain, component, settings.step))
        for component in scales:
            gain = -float(slope[component.layer, component.index])
            if component.kind == kind:
                moves.append((abs(gain), component, math.copysign(settings.step, gain)))
    chosen: list[tuple[Kind, int, int, float]] = []
    room = settings.most_components - len(scales)
    for gain, component, by in sorted(moves, key=lambda move: (-move[0], move[1])):
        is_new = component not in scales
        fits = scales.get(component, 1.0) + by <= settings.most_scale + _ROUNDING and (room > 0 or not is_new)
        if gain > 0 and fits and len(chosen) < settings.at_once:
            chosen.append((component.kind, component.layer, component.index, by))
            room -= is_new
    return chosen


_T = TypeVar("_T")


def _turn(things: Sequence[_T], turn: int, count: int) -> list[_T]:
    """Return the next ``count`` of ``things``, going round."""
    return [things[(turn * count + i) % len(things)] for i in range(min(count, len(things)))]


def _is_over(path: Sequence[PathPoint], settings: StepwiseSettings) -> bool:
    last = path[-settings.patience :]
    faultless = len(last) == settings.patience and not any(point.errors for point in last)
    return faultless or path[-1].drift > 2 * settings.most_drift
