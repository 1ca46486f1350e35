"""Choose components and a scale for each, in small steps, by what the right answers gain: a search beyond RASteer's.

The paper's order takes the k best of a ranking that looks at each component alone, and scales them all alike; from one
k to the next the accuracy can jump from nothing to everything and back. Here every step raises the scale of the few
components that the answers of some training prompts gain most from, given what has been raised before, by a little.
One backward pass gives the gain of all components at once (:mod:`steering_profiles.fitting.gradient`).

The course of the search is a path from the plain model on. The point of it is chosen on dev and, where the task has
them, on prompts in other shapes; text that has nothing to do with the task says how far a point may go. As in the grid
a point counts as good as the worst of itself and its neighbours, and of equals the one that disturbs least is chosen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from steering_profiles.evaluation import Accuracy
from steering_profiles.fitting.components import Component, Kind, Scales
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.fitting.journal import Journal
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.task import Example, Task, balanced

_ROUNDING = 1e-9


@dataclass(frozen=True)
class StepwiseSettings:
    """How far the search goes, and in what steps.

    Raises:
        ValueError: a setting with which nothing can be searched; the message names it.
    """

    step: float = 0.1
    """By how much a scale is raised at a time."""
    at_once: int = 2
    """How many components are raised in one step."""
    prompts: int = 64
    """That each step looks at."""
    steps: int = 60
    measured_every: int = 5
    most_components: int = 20
    most_scale: float = 1.5
    most_drift: float = 0.01
    """By how much the NLL of other text may rise, as a share of what it was."""
    patience: int = 4
    """Measured points without a mistake after which the search ends."""

    def __post_init__(self) -> None:
        for name in ("at_once", "prompts", "steps", "measured_every", "most_components", "patience"):
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
    kinds: Sequence[Kind],
    measure: Measure,
    *,
    settings: StepwiseSettings = StepwiseSettings(),
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[PathPoint]:
    """Return the points of the path, the plain model first."""
    journal, progress = journal or Journal(), progress or Silent()
    prompts = balanced((*task.train, *(example for shape in task.shapes.values() for example in shape)))
    scales: dict[Component, float] = {}
    path: list[PathPoint] = []

    def measure_here(step: int) -> None:
        def made() -> dict[str, JsonValue]:
            accuracy, drift = measure(scales)
            return {"accuracy": accuracy.to_json(), "drift": drift}

        found: Any = journal.recall(f"path {step}", made)
        path.append(PathPoint(step, dict(scales), Accuracy.from_json(found["accuracy"]), found["drift"]))

    progress.stage("raising scales step by step", settings.steps)
    measure_here(0)
    with DifferentiableScales(loaded, kinds) as model:
        for step in range(1, settings.steps + 1):
            batch = _turn(prompts, step - 1, settings.prompts)
            raised = journal.recall(f"step {step}", lambda batch=batch: _choose_next(model, batch, scales, settings))
            for kind, layer, index in raised:
                component = Component(kind, layer, index)
                scales[component] = round(scales.get(component, 1.0) + settings.step, 6)
            progress.advance()
            if step % settings.measured_every == 0 or not raised:
                measure_here(step)
            if not raised or _is_over(path, settings):
                break
    return path


def choose(path: Sequence[PathPoint], most_drift: float) -> PathPoint:
    """Return the best point of a path among those whose drift is at most ``most_drift``; the plain model always is."""

    def standing(index: int) -> tuple[int, float]:
        around = path[max(0, index - 1) : index + 2]
        return max(point.errors for point in around), path[index].disturbance

    return path[min((i for i, point in enumerate(path) if i == 0 or point.drift <= most_drift), key=standing)]


def _choose_next(
    model: DifferentiableScales, batch: Sequence[Example], scales: Scales, settings: StepwiseSettings
) -> list[tuple[Kind, int, int]]:
    """Return the components whose scale the answers of ``batch`` gain most from raising; fewer where few help."""
    found: list[tuple[float, Component]] = []
    for kind, slope in model.slope(batch, scales).by_kind.items():
        # As many as can be ruled out by the limits below, and those that are wanted.
        gains, places = (-slope.flatten()).topk(min(slope.numel(), len(scales) + settings.at_once))
        found += [
            (gain, Component(kind, *divmod(place, slope.shape[1])))
            for gain, place in zip(gains.tolist(), places.tolist(), strict=True)
        ]
        found += [(-float(slope[c.layer, c.index]), c) for c in scales if c.kind == kind]
    chosen: list[Component] = []
    for gain, component in sorted(set(found), key=lambda one: (-one[0], one[1])):
        is_new = component not in scales and component not in chosen
        room = len(scales) + sum(one not in scales for one in chosen) < settings.most_components
        fits = scales.get(component, 1.0) + settings.step <= settings.most_scale + _ROUNDING
        if gain > 0 and fits and (room or not is_new) and len(chosen) < settings.at_once:
            chosen.append(component)
    return [(component.kind, component.layer, component.index) for component in chosen]


def _turn(prompts: Sequence[Example], turn: int, count: int) -> list[Example]:
    """Return the next ``count`` of ``prompts``, going round."""
    return [prompts[(turn * count + i) % len(prompts)] for i in range(min(count, len(prompts)))]


def _is_over(path: Sequence[PathPoint], settings: StepwiseSettings) -> bool:
    last = path[-settings.patience :]
    faultless = len(last) == settings.patience and not any(point.errors for point in last)
    return faultless or path[-1].drift > 2 * settings.most_drift
