"""Stepwise search for components and their scales, as sparse coordinate descent on a loss: this package's own method.

The search of RASteer (arXiv:2507.00322) takes the k best components of a ranking that looks at each component alone,
and gives all of them the same scale. Here every step changes the scales of a few components by a small amount: of those
with the largest gradient. The loss is that of the answers on a fitting batch of prompts, plus the weighted NLL of other
text. One backward pass gives its gradient for all components (:mod:`steering_profiles.fitting.gradient`). The step size
is halved when a step has not reduced the loss.

The search starts at the plain model. Some of its steps are measured on a validation set (dev prompts, and prompts in
other formats where the task has them) and on other text. One of the measured steps is chosen (:func:`.standing`). Steps
that increase the NLL of other text too much are not allowed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import JsonValue

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy
from steering_profiles.evaluation.windows import Window
from steering_profiles.fit_settings import Kind, StepwiseSettings
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.components import Component, Scales, ScaleSet
from steering_profiles.fitting.gradient import DifferentiableScales
from steering_profiles.fitting.pressure import Pressure
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.task import Example, Task, balanced, round_robin

_ROUNDING = 1e-9


@dataclass(frozen=True)
class SearchStep:
    """Scales after ``step`` steps of the search, and their measurements."""

    step: int
    scales: Scales
    accuracy: Accuracy
    """On the validation set."""
    nll_increase: float
    """Largest increase of the NLL over the texts, as a share of the plain model's NLL."""

    @property
    def errors(self) -> int:
        """Number of wrong answers."""
        return self.accuracy.total - self.accuracy.correct

    @property
    def total_change(self) -> float:
        """Total change (L1): the sum of ``|scale - 1|`` over the components."""
        return ScaleSet(self.scales).total_change


Measure = Callable[[Scales], tuple[Accuracy, float]]
"""Accuracy on the validation set, and increase of the NLL of other text."""


def search_path(
    loaded: LoadedModel,
    task: Task,
    texts: Sequence[Window],
    kinds: Sequence[Kind],
    measure: Measure,
    *,
    settings: StepwiseSettings = StepwiseSettings(),
    condition: Condition | None = None,
    beside: Sequence[ScaleSet] = (),
    checkpoint: FitCheckpoint | None = None,
    progress: Progress | None = None,
) -> list[SearchStep]:
    """Return the measured steps of the search, the one without scales first. ``texts`` are unrelated to the task.

    The scales apply where ``condition`` holds, if there is one. Those of the sets ``beside`` are in place all the time.
    """
    checkpoint = FitCheckpoint() if checkpoint is None else checkpoint  # an empty checkpoint is falsy
    progress = progress or Silent()
    batch = _fitting_batch(task, texts, settings)
    pressure = None if settings.max_lost is None else Pressure(_labels(batch[0], task))
    scales: dict[Component, float] = {}
    path: list[SearchStep] = []
    where = "" if condition is None else f" where {condition}"
    if beside:
        where += f", beside {len(beside)} of {sum(len(one.scales) for one in beside)} scales"

    def measure_here(step: int) -> None:
        def made() -> dict[str, JsonValue]:
            accuracy, nll_increase = measure(scales)
            return {"accuracy": accuracy.to_json(), "nll_increase": nll_increase}

        found: Any = checkpoint.recall(f"path {step}{where}", made)
        path.append(SearchStep(step, dict(scales), Accuracy.from_json(found["accuracy"]), found["nll_increase"]))

    progress.stage(f"moving scales step by step{where}", settings.max_steps)
    measure_here(0)
    best: tuple[float, Sequence[float]] | None = None
    size = settings.step
    with DifferentiableScales(loaded, kinds, condition, beside, settings.margin) as model:
        for step in range(1, settings.max_steps + 1):
            weights = None if pressure is None else pressure.weights
            loss, gains, leads = checkpoint.recall(
                f"step {step}{where}", partial(_loss_and_gains, model, batch, scales, settings, weights)
            )
            if pressure is not None:
                pressure.update(leads)
            weights = None if pressure is None else pressure.weights
            loss_at = partial(weighted_loss, weights=weights, margin=settings.margin)
            if best is None or loss_at(loss, leads) < loss_at(*best):
                best = loss, leads
            else:
                size /= 2
            moves = _moves([(Component(*place), gain) for place, gain in gains], scales, size, settings)
            for component, by in moves.items():
                scales[component] = round(scales.get(component, 1.0) + by, 6)
                if scales[component] == 1:
                    del scales[component]
            progress.advance()
            ends = not moves or size < settings.min_step
            if step % settings.validation_interval == 0 or ends:
                measure_here(step)
            if ends or _is_over(path, settings):
                break
    return path


def standing(path: Sequence[SearchStep], index: int) -> tuple[int, float]:
    """Return by what a measured step is judged; the smallest is the best.

    As on the grid, it is the largest number of errors among the step and its neighbours, so that no step is chosen for
    its luck; of equal steps the one with the smallest total change is better. The plain model, at which ``path``
    begins, is judged by itself and is nobody's neighbour: a step away from it is there to have fewer errors.
    """
    around = path[max(1, index - 1) : index + 2] if index else path[:1]
    return max(point.errors for point in around), path[index].total_change


def choose_step(path: Sequence[SearchStep], max_nll_increase: float) -> SearchStep:
    """Return the best step with an NLL increase of at most ``max_nll_increase``; the plain model is always allowed."""
    allowed = (i for i, point in enumerate(path) if i == 0 or point.nll_increase <= max_nll_increase)
    return path[min(allowed, key=lambda index: standing(path, index))]


_FittingBatch = tuple[Sequence[Example], Sequence[Window]]
_Place = tuple[Kind, int, int]


def _fitting_batch(task: Task, texts: Sequence[Window], settings: StepwiseSettings) -> _FittingBatch:
    """Return the fitting batch. It is the same in every step, so that the losses of steps can be compared."""
    return _mixed(task.train, task)[: settings.batch_prompts], texts[: settings.batch_windows]


def validation_set(task: Task, settings: StepwiseSettings) -> list[Example]:
    """Return the prompts that steps of the search are measured on."""
    return _mixed(task.dev, task)[: settings.validation_prompts]


def _mixed(split: Sequence[Example], task: Task) -> list[Example]:
    """Return a split and the task's other formats interleaved, two prompts of the split to one of each format."""
    ordered = balanced(split)
    return round_robin([ordered[::2], ordered[1::2], *(balanced(examples) for examples in task.fit_formats.values())])


def _labels(prompts: Sequence[Example], task: Task) -> list[str]:
    """Return the format and the sub-task of each prompt of the fitting batch."""
    formats = {id(example): name for name, examples in task.fit_formats.items() for example in examples}
    return [f"{formats.get(id(example), 'train')}: {example.group}" for example in prompts]


def _loss_and_gains(
    model: DifferentiableScales,
    batch: _FittingBatch,
    scales: Scales,
    settings: StepwiseSettings,
    weights: Sequence[float] | None,
) -> tuple[float, list[tuple[_Place, float]], list[float]]:
    """Return the loss at ``scales``, the components with the largest gradients, with these negated, and the leads.

    The gradient has the ``weights`` of the prompts, so that steps can be compared by the loss.
    """
    prompts, texts = batch
    of_answers, of_texts = model.of_answers(prompts, scales, weights), model.of_texts(texts, scales)
    ahead: dict[_Place, float] = {}
    for kind, slope in of_answers.by_kind.items():
        gains = -(slope + settings.text_weight * of_texts.by_kind[kind])
        # Components at their limit cannot be moved, so there must be enough others to choose from.
        count = min(gains.numel(), settings.components_per_step + len(scales))
        places = [divmod(place, gains.shape[1]) for place in gains.flatten().abs().topk(count).indices.tolist()]
        places += [(component.layer, component.index) for component in scales if component.kind == kind]
        ahead |= {(kind, layer, index): float(gains[layer, index]) for layer, index in places}
    leads = [] if weights is None else list(of_answers.leads)
    return of_answers.loss + settings.text_weight * of_texts.loss, list(ahead.items()), leads


def weighted_loss(loss: float, leads: Sequence[float], weights: Sequence[float] | None, margin: float) -> float:
    """Return the loss, made with this ``margin``, with the ``weights`` of the prompts; without any, as it is."""
    if weights is None:
        return loss
    extra = ((weight - 1) * max(0.0, margin - lead) for weight, lead in zip(weights, leads, strict=True))
    return loss + sum(extra) / len(weights)


def _moves(
    ahead: Sequence[tuple[Component, float]], scales: Scales, size: float, settings: StepwiseSettings
) -> dict[Component, float]:
    """Return the changes of scales that reduce the loss most, within the limits of the settings."""
    moves: dict[Component, float] = {}
    room = settings.max_components - len(scales)
    for component, gain in sorted(ahead, key=lambda one: (-abs(one[1]), one[0])):
        by, is_new = math.copysign(size, gain), component not in scales
        far = abs(scales.get(component, 1.0) + by - 1) > settings.max_scale - 1 + _ROUNDING
        if gain and not far and (room > 0 or not is_new) and len(moves) < settings.components_per_step:
            moves[component] = by
            room -= is_new
    return moves


def _is_over(path: Sequence[SearchStep], settings: StepwiseSettings) -> bool:
    last = path[-settings.patience :]
    faultless = len(last) == settings.patience and not any(point.errors for point in last)
    return faultless or path[-1].nll_increase > 2 * settings.max_nll_increase
