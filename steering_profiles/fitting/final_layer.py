"""Fit the final-layer fixes of Lv et al. (arXiv:2403.19521): self-only attention and intercept subtraction.

The paper masks the final layer's attention wholly and subtracts a positive share of the intercept. Both are fitted
numbers here, 0 and negative shares included, since what helps one model hurts another. The intercept is that of the
regression (:mod:`steering_profiles.fitting.decomposition`) or the plain mean of the MLP's output, on train.

The rule of choice, on dev: of the points of the grid that are *allowed*, the one with the least NLL of the correct
answer, averaged over the task's groups; of equals the one that changes least. The plain model is always allowed. Any
other point is if by it

* no group of dev loses more than ``most_lost`` percentage points of accuracy;
* none of the task's other shapes, such as few-shot prompts, does either, nor has a higher NLL than before;
* the NLL of no other text rises by more than ``most_drift``.

With gates (:class:`steering_profiles.schema.Gate`) every point that is no worse on dev than the plain model is also
tried behind the best allowed band of :data:`.gating.EDGES`. Since a gate chooses between two results that are known,
that takes no further pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from pydantic import JsonValue

from steering_profiles import __version__
from steering_profiles.errors import FitError
from steering_profiles.evaluation import (
    Accuracy,
    ArmCalibration,
    CalibrationComparison,
    FinalLayerReplay,
    SideEffects,
    TextPredictor,
    TokenPredictor,
    Window,
    compare_calibration,
    fitting_texts,
    measure_side_effects,
    text_windows,
    tune_temperature,
)
from steering_profiles.fit_settings import FinalLayerSettings, Source
from steering_profiles.fitting.decomposition import decompose, record_layer
from steering_profiles.fitting.gating import Answers, Evidence, Score, possible_gates
from steering_profiles.fitting.journal import Journal
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.schema import (
    INTERCEPT_TENSOR,
    FinalLayer,
    Gate,
    ModelIdentity,
    Profile,
    Provenance,
    strength_text,
)
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.tasks.task import Task

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """One setting of the final layer."""

    self_only_attention: float
    intercept_scale: float
    """``lambda``."""
    source: Source | None
    """Whose intercept; None where none of it is subtracted."""
    gate: Gate | None = None

    def __str__(self) -> str:
        intercept = "" if self.source is None else f", {strength_text(self.intercept_scale)} x {self.source}"
        gate = "" if self.gate is None else f", where the top probability is {self.gate}"
        return f"self-only attention {strength_text(self.self_only_attention)}{intercept}{gate}"

    @property
    def disturbance(self) -> float:
        """How much is changed in all."""
        return round(self.self_only_attention + abs(self.intercept_scale), 9)


PLAIN = Point(0.0, 0.0, None)


@dataclass(frozen=True)
class Elsewhere:
    """What a point does besides dev."""

    shapes: Mapping[str, Score]
    """To the task's other shapes."""
    drift: float
    """By how much the NLL of the text that suffers most rises, as a share of what it was."""


@dataclass(frozen=True)
class Measured:
    """What a point does."""

    point: Point
    dev: Score
    elsewhere: Elsewhere | None
    """None for a point that is worse on dev than the plain model, and so out of the question."""


@dataclass(frozen=True)
class Refused:
    """A point that may not be chosen, and why."""

    measured: Measured
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class WithoutGate:
    """What the chosen settings do without their gate, where nothing was chosen by it."""

    test: ArmCalibration
    side_effects: SideEffects


@dataclass(frozen=True)
class FinalLayerResult:
    """A fitted profile and what the choice rests on."""

    profile: Profile
    settings: FinalLayerSettings
    grid: Sequence[Measured]
    chosen: Measured
    without_drift_limit: Measured
    """What would have been chosen without gates if other text did not count."""
    r2: float | None
    """Share of the variance of the final MLP's output on train that the regression explains; None without one."""
    dev: CalibrationComparison
    test: CalibrationComparison
    side_effects: SideEffects
    without_gate: WithoutGate | None
    """None where the choice has no gate."""

    @property
    def refused(self) -> Refused | None:
        """What would have been chosen if everything were allowed; None if it is allowed."""
        return best_refused(self.grid, self.settings)


def fit_final_layer(
    loaded: LoadedModel,
    task: Task,
    *,
    name: str,
    command: str,
    settings: FinalLayerSettings = FinalLayerSettings(),
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> FinalLayerResult:
    """Fit a profile of the final layer's two settings for ``task``.

    ``command`` is recorded as what makes the profile again. The same model, task and settings give the same profile.
    What ``journal`` holds of the same fit is not computed again.

    Raises:
        FitError: the train prompts do not determine the regression's intercept, if that is asked for.
    """
    journal = Journal() if journal is None else journal  # an empty one is false
    progress = progress or Silent()
    recorded = journal.recall("intercepts", lambda: _intercepts(loaded, task, settings, progress))
    intercepts = recorded["vectors"]

    def profile_at(point: Point) -> Profile:
        return _profile(point, intercepts, loaded.identity, name, task)

    def steering_at(point: Point) -> Steering:
        return UNSTEERED if point == PLAIN else (ProfileAtStrength(profile_at(point)),)

    replay = FinalLayerReplay(loaded)
    texts = {name: text_windows(loaded, text) for name, text in fitting_texts().items()}
    with TokenPredictor(loaded, replay) as predictor, TextPredictor(loaded, replay) as text_predictor:
        trial = _Trial(task, texts, predictor, text_predictor, settings)
        points = make_grid(settings)
        progress.stage("measuring the grid on dev", len(points))
        grid: list[Measured] = []
        for point in points:
            plain = grid[0] if grid else None
            found = journal.recall(str(point), partial(trial.measure, point, steering_at(point), plain))
            grid += _all_measured(point, found)
            progress.advance()
        chosen = choose(grid, settings)
        steering = steering_at(chosen.point)
        ungated = None if chosen.point.gate is None else steering_at(replace(chosen.point, gate=None))
        passes = 4 * len(task.dev) + (2 if ungated is None else 4) * len(task.test)
        progress.stage("measuring dev and test beside a temperature", passes)
        temperature, _ = tune_temperature(predictor, task.dev, progress)
        dev, test = (
            compare_calibration(predictor, examples, steering, temperature, progress)
            for examples in (task.dev, task.test)
        )
        without_gate = None
        if ungated is not None:
            opened = compare_calibration(predictor, task.test, ungated, temperature, progress).profile
            without_gate = WithoutGate(opened, measure_side_effects(loaded, ungated, progress, replay))
    side_effects = measure_side_effects(loaded, steering, progress, replay)
    provenance = Provenance(
        tool_version=__version__,
        command=command,
        task=task.name,
        seed=task.seed,
        split_sizes=task.split_sizes,
        grid=_searched(settings, grid),
        chosen=_chosen(chosen, recorded["r2"], temperature),
        dev=_figures(dev),
        test=_figures(test),
        side_effects=side_effects.record(),
    )
    return FinalLayerResult(
        profile=profile_at(chosen.point).model_copy(update={"provenance": provenance}),
        settings=settings,
        grid=grid,
        chosen=chosen,
        without_drift_limit=choose([m for m in grid if m.point.gate is None], settings, limit_drift=False),
        r2=recorded["r2"],
        dev=dev,
        test=test,
        side_effects=side_effects,
        without_gate=without_gate,
    )


def make_grid(settings: FinalLayerSettings) -> list[Point]:
    """Return every point once, the plain model first. Without an intercept it does not matter whose it would be."""
    points = [
        Point(own, scale, source if scale else None)
        for own in sorted({0.0, *settings.self_only_attention})
        for scale in sorted({0.0, *settings.lambdas})
        for source in settings.sources
    ]
    return list(dict.fromkeys([PLAIN, *points]))


def choose(grid: Sequence[Measured], settings: FinalLayerSettings, *, limit_drift: bool = True) -> Measured:
    """Return the point that the rule at the top of this module chooses; ``grid`` has the plain model."""
    plain = next(measured for measured in grid if measured.point == PLAIN)
    allowed = [measured for measured in grid if is_allowed(measured, plain, settings, limit_drift=limit_drift)]
    return min(allowed, key=lambda one: (round(one.dev.nll, 9), one.point.disturbance))


def is_allowed(measured: Measured, plain: Measured, settings: FinalLayerSettings, *, limit_drift: bool = True) -> bool:
    """Return whether the rule at the top of this module lets ``measured`` be chosen."""
    return not any(_reasons_against(measured, plain, settings, limit_drift))


def best_refused(grid: Sequence[Measured], settings: FinalLayerSettings) -> Refused | None:
    """Return the point that would be chosen if everything were allowed; None if it is allowed."""
    plain = next(measured for measured in grid if measured.point == PLAIN)
    best = min(grid, key=lambda one: (round(one.dev.nll, 9), one.point.disturbance))
    reasons = tuple(_reasons_against(best, plain, settings, limit_drift=True))
    return Refused(best, reasons) if reasons else None


def _reasons_against(
    measured: Measured, plain: Measured, settings: FinalLayerSettings, limit_drift: bool
) -> Iterator[str]:
    """Yield, in words, what of the rule at the top of this module keeps ``measured`` from being chosen."""
    if measured is plain:
        return
    there, before = measured.elsewhere, plain.elsewhere
    if there is None or before is None:
        yield "it is worse on dev than the plain model"
        return
    if limit_drift and there.drift > settings.most_drift:
        yield f"the NLL of other text rises by {there.drift:.2%}, more than {settings.most_drift:.2%}"
    yield from _losses(measured.dev.accuracy, plain.dev.accuracy, settings.most_lost)
    for name, shape in there.shapes.items():
        if shape.nll > before.shapes[name].nll:
            yield f"the NLL on {name} rises by {shape.nll - before.shapes[name].nll:.4f}"
        yield from _losses(
            _pooled(shape.accuracy, name), _pooled(before.shapes[name].accuracy, name), settings.most_lost
        )


def _losses(accuracy: Accuracy, plain: Accuracy, most: float) -> Iterator[str]:
    """Yield which groups have lost more than ``most`` percentage points."""
    for group, (correct, total) in accuracy.counts.items():
        lost = 100 * (plain.counts[group][0] - correct)
        if lost > most * total + _ROUNDING:
            yield f"{group} loses {lost / total:.1f} points of accuracy"


def _pooled(accuracy: Accuracy, name: str) -> Accuracy:
    return Accuracy({name: (accuracy.correct, accuracy.total)})


def _intercepts(loaded: LoadedModel, task: Task, settings: FinalLayerSettings, progress: Progress) -> dict[str, Any]:
    """Return the intercept of each source, and what the regression explains."""
    record = record_layer(loaded, task.train, loaded.anatomy.sizes.layers - 1, progress)
    if "regression" not in settings.sources:
        return {"vectors": {"mean": record.mlp.mean(dim=0).tolist()}, "r2": None}
    try:
        found = decompose(record)
    except FitError as exc:
        raise FitError(f"no regression intercept of {task.name}: {exc}; the plain mean needs no regression") from exc
    return {"vectors": {"regression": found.intercept.tolist(), "mean": found.mean_output.tolist()}, "r2": found.r2}


def _profile(
    point: Point, intercepts: Mapping[str, Sequence[float]], model: ModelIdentity, name: str, task: Task
) -> Profile:
    tensors = {}
    if point.source is not None:
        tensors[INTERCEPT_TENSOR] = np.asarray(intercepts[point.source], dtype=np.float32)
    return Profile(
        name=name,
        description=f"Changes the final layer so that the right answers on {task.name} become likelier.",
        method="final-layer",
        model=model,
        final_layer=FinalLayer(
            self_only_attention=point.self_only_attention, intercept_scale=point.intercept_scale, gate=point.gate
        ),
        tensors=tensors,
    )


@dataclass
class _Trial:
    """What a point is measured with."""

    task: Task
    texts: Mapping[str, Sequence[Window]]
    """By name; those that a fit may look at."""
    predictor: TokenPredictor
    text_predictor: TextPredictor
    settings: FinalLayerSettings

    def measure(self, point: Point, steering: Steering, plain: Measured | None) -> list[Any]:
        """Return what ``point`` does and, if gates are wanted, what it does behind the best one, as plain data."""
        dev = self._on_dev(steering)
        if plain is not None and dev.score.nll > plain.dev.nll:
            return [_to_json(Measured(point, dev.score, None))]
        before = self._plain
        evidence = self._evidence(dev, steering)
        found = [_measured(point, evidence, before)]
        if self.settings.gates and plain is not None:
            behind = (
                _measured(replace(point, gate=gate), evidence.behind(gate, before), before) for gate in possible_gates()
            )
            allowed = [one for one in behind if is_allowed(one, plain, self.settings)]
            # Of equals the narrowest: it changes least.
            found += sorted(allowed, key=lambda one: (round(one.dev.nll, 9), _breadth(one.point)))[:1]
        return list(map(_to_json, found))

    @cached_property
    def _plain(self) -> Evidence:
        return self._evidence(self._on_dev(UNSTEERED), UNSTEERED)

    def _on_dev(self, steering: Steering) -> Answers:
        return Answers.of(self.predictor.answers(self.task.dev, steering))

    def _evidence(self, dev: Answers, steering: Steering) -> Evidence:
        return Evidence(
            dev=dev,
            shapes={n: Answers.of(self.predictor.answers(some, steering)) for n, some in self.task.shapes.items()},
            texts={name: self.text_predictor.token_scores(some, steering) for name, some in self.texts.items()},
        )


def _measured(point: Point, evidence: Evidence, plain: Evidence) -> Measured:
    shapes = {name: answers.score for name, answers in evidence.shapes.items()}
    return Measured(point, evidence.dev.score, Elsewhere(shapes, evidence.drift(plain)))


def _breadth(point: Point) -> float:
    return 1.0 if point.gate is None else point.gate.high - point.gate.low


def _to_json(measured: Measured) -> dict[str, Any]:
    gate, there = measured.point.gate, measured.elsewhere
    return {
        "gate": None if gate is None else [gate.low, gate.high],
        "dev": measured.dev.to_json(),
        "elsewhere": there
        and {"shapes": {name: score.to_json() for name, score in there.shapes.items()}, "drift": there.drift},
    }


def _all_measured(point: Point, found: Sequence[Any]) -> Iterator[Measured]:
    """Yield what :meth:`_Trial.measure` found of ``point``."""
    for one in found:
        there = one["elsewhere"]
        if there is not None:
            shapes = {name: Score.from_json(score) for name, score in there["shapes"].items()}
            there = Elsewhere(shapes, there["drift"])
        gate = None if one["gate"] is None else Gate(low=one["gate"][0], high=one["gate"][1])
        yield Measured(replace(point, gate=gate), Score.from_json(one["dev"]), there)


def _searched(settings: FinalLayerSettings, grid: Sequence[Measured]) -> dict[str, JsonValue]:
    """Return what was searched, and every point that was measured."""
    points: list[JsonValue] = [
        [
            m.point.self_only_attention,
            m.point.intercept_scale,
            m.point.source,
            round(m.dev.nll, 5),
            round(m.dev.probability, 5),
            m.dev.accuracy.correct,
            m.dev.accuracy.total,
            None if m.elsewhere is None else round(m.elsewhere.drift, 5),
            None if m.point.gate is None else [m.point.gate.low, m.point.gate.high],
        ]
        for m in grid
    ]
    return {
        "method": "final-layer",
        "most_lost": settings.most_lost,
        "most_drift": settings.most_drift,
        "columns": [
            *("own_attention", "lambda", "intercept", "dev NLL", "dev P(correct)", "right", "asked", "drift", "gate")
        ],
        "points": points,
    }


def _chosen(chosen: Measured, r2: float | None, temperature: float) -> dict[str, JsonValue]:
    return {
        "own_attention": chosen.point.self_only_attention,
        "lambda": chosen.point.intercept_scale,
        "intercept": chosen.point.source,
        "gate": None if chosen.point.gate is None else str(chosen.point.gate),
        "r2": None if r2 is None else round(r2, 5),
        "drift": None if chosen.elsewhere is None else round(chosen.elsewhere.drift, 5),
        "temperature": round(temperature, 5),
    }


def _figures(compared: CalibrationComparison) -> dict[str, JsonValue]:
    """Return accuracy as every method records it, and mean P(correct), NLL and calibration error of all prompts."""
    arms = {"before": compared.baseline, "after": compared.profile, "temperature": compared.tempered}
    facts: dict[str, JsonValue] = {
        name: dict(arm.all_prompts.accuracy.percent) for name, arm in arms.items() if name != "temperature"
    }
    for name, arm in arms.items():
        every = arm.all_prompts
        facts[f"{name}: calibration"] = {
            "probability": round(every.pooled.probability, 5),
            "nll": round(every.pooled.nll, 5),
            "error": round(every.pooled.error, 5),
        }
    return facts
