"""Fit the final-layer fixes of Lv et al. (arXiv:2403.19521): self-only attention and intercept subtraction.

The paper masks the final layer's attention wholly and subtracts a positive share of the intercept. Both are fitted
numbers here, 0 and negative shares included, since what helps one model hurts another. The intercept is that of the
regression (:mod:`steering_profiles.fitting.decomposition`) or the plain mean of the MLP's output, on train.

The rule of choice, on dev: of the points of the grid that are *allowed*, the one with the least NLL of the correct
answer, averaged over the task's groups; of equals the one that changes least. The plain model is always allowed. Any
other candidate is if by it

* no group of dev loses more than ``max_lost`` percentage points of accuracy;
* none of the task's other prompt formats, such as few-shot prompts, does either, nor has a higher NLL than before;
* the NLL of no other text rises by more than ``max_nll_increase``.

With gates (:class:`steering_profiles.schema.Gate`) every candidate that is no worse on dev than the plain model is also
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
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.decomposition import decompose, record_layer
from steering_profiles.fitting.gating import Answers, Evidence, Score, possible_gates
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
class FinalLayerCandidate:
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
    def total_change(self) -> float:
        """How much is changed in all."""
        return round(self.self_only_attention + abs(self.intercept_scale), 9)


PLAIN = FinalLayerCandidate(0.0, 0.0, None)


@dataclass(frozen=True)
class OtherMeasurements:
    """What a candidate does besides dev."""

    fit_formats: Mapping[str, Score]
    """Scores on the task's other prompt formats, by format."""
    nll_increase: float
    """By how much the NLL of the text that suffers most rises, as a share of what it was."""


@dataclass(frozen=True)
class MeasuredCandidate:
    """What a candidate does."""

    candidate: FinalLayerCandidate
    dev: Score
    other: OtherMeasurements | None
    """None for a candidate that is worse on dev than the plain model, and so out of the question."""


@dataclass(frozen=True)
class RejectedCandidate:
    """A candidate that may not be chosen, and why."""

    measured: MeasuredCandidate
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
    grid: Sequence[MeasuredCandidate]
    chosen: MeasuredCandidate
    without_nll_limit: MeasuredCandidate
    """What would have been chosen without gates if other text did not count."""
    r2: float | None
    """Share of the variance of the final MLP's output on train that the regression explains; None without one."""
    dev: CalibrationComparison
    test: CalibrationComparison
    side_effects: SideEffects
    without_gate: WithoutGate | None
    """None where the choice has no gate."""

    @property
    def rejected(self) -> RejectedCandidate | None:
        """What would have been chosen if everything were allowed; None if it is allowed."""
        return best_rejected(self.grid, self.settings)


def fit_final_layer(
    loaded: LoadedModel,
    task: Task,
    *,
    name: str,
    command: str,
    settings: FinalLayerSettings = FinalLayerSettings(),
    checkpoint: FitCheckpoint | None = None,
    progress: Progress | None = None,
) -> FinalLayerResult:
    """Fit a profile of the final layer's two settings for ``task``.

    ``command`` is recorded as what makes the profile again. The same model, task and settings give the same profile.
    What ``checkpoint`` holds of the same fit is not computed again.

    Raises:
        FitError: the train prompts do not determine the regression's intercept, if that is asked for.
    """
    checkpoint = FitCheckpoint() if checkpoint is None else checkpoint  # an empty one is false
    progress = progress or Silent()
    recorded = checkpoint.recall("intercepts", lambda: _intercepts(loaded, task, settings, progress))
    intercepts = recorded["vectors"]

    def profile_at(candidate: FinalLayerCandidate) -> Profile:
        return _profile(candidate, intercepts, loaded.identity, name, task)

    def steering_at(candidate: FinalLayerCandidate) -> Steering:
        return UNSTEERED if candidate == PLAIN else (ProfileAtStrength(profile_at(candidate)),)

    replay = FinalLayerReplay(loaded)
    texts = {name: text_windows(loaded, text) for name, text in fitting_texts().items()}
    with TokenPredictor(loaded, replay) as predictor, TextPredictor(loaded, replay) as text_predictor:
        trial = _Trial(task, texts, predictor, text_predictor, settings)
        candidates = make_candidates(settings)
        progress.stage("measuring the grid on dev", len(candidates))
        grid: list[MeasuredCandidate] = []
        for candidate in candidates:
            plain = grid[0] if grid else None
            found = checkpoint.recall(str(candidate), partial(trial.measure, candidate, steering_at(candidate), plain))
            grid += _all_measured(candidate, found)
            progress.advance()
        chosen = choose_candidate(grid, settings)
        steering = steering_at(chosen.candidate)
        ungated = None if chosen.candidate.gate is None else steering_at(replace(chosen.candidate, gate=None))
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
        profile=profile_at(chosen.candidate).model_copy(update={"provenance": provenance}),
        settings=settings,
        grid=grid,
        chosen=chosen,
        without_nll_limit=choose_candidate([m for m in grid if m.candidate.gate is None], settings, limit_nll=False),
        r2=recorded["r2"],
        dev=dev,
        test=test,
        side_effects=side_effects,
        without_gate=without_gate,
    )


def make_candidates(settings: FinalLayerSettings) -> list[FinalLayerCandidate]:
    """Return every candidate once, the plain model first. Without an intercept it does not matter whose it would be."""
    candidates = [
        FinalLayerCandidate(own, scale, source if scale else None)
        for own in sorted({0.0, *settings.self_only_attention})
        for scale in sorted({0.0, *settings.lambdas})
        for source in settings.sources
    ]
    return list(dict.fromkeys([PLAIN, *candidates]))


def choose_candidate(
    grid: Sequence[MeasuredCandidate], settings: FinalLayerSettings, *, limit_nll: bool = True
) -> MeasuredCandidate:
    """Return the candidate that the rule at the top of this module chooses; ``grid`` has the plain model."""
    plain = next(measured for measured in grid if measured.candidate == PLAIN)
    allowed = [measured for measured in grid if is_allowed(measured, plain, settings, limit_nll=limit_nll)]
    return min(allowed, key=lambda one: (round(one.dev.nll, 9), one.candidate.total_change))


def is_allowed(
    measured: MeasuredCandidate, plain: MeasuredCandidate, settings: FinalLayerSettings, *, limit_nll: bool = True
) -> bool:
    """Return whether the rule at the top of this module lets ``measured`` be chosen."""
    return not any(_reasons_against(measured, plain, settings, limit_nll))


def best_rejected(grid: Sequence[MeasuredCandidate], settings: FinalLayerSettings) -> RejectedCandidate | None:
    """Return the candidate that would be chosen if everything were allowed; None if it is allowed."""
    plain = next(measured for measured in grid if measured.candidate == PLAIN)
    best = min(grid, key=lambda one: (round(one.dev.nll, 9), one.candidate.total_change))
    reasons = tuple(_reasons_against(best, plain, settings, limit_nll=True))
    return RejectedCandidate(best, reasons) if reasons else None


def _reasons_against(
    measured: MeasuredCandidate, plain: MeasuredCandidate, settings: FinalLayerSettings, limit_nll: bool
) -> Iterator[str]:
    """Yield, in words, what of the rule at the top of this module keeps ``measured`` from being chosen."""
    if measured is plain:
        return
    there, before = measured.other, plain.other
    if there is None or before is None:
        yield "it is worse on dev than the plain model"
        return
    if limit_nll and there.nll_increase > settings.max_nll_increase:
        yield f"the NLL of other text rises by {there.nll_increase:.2%}, more than {settings.max_nll_increase:.2%}"
    yield from _losses(measured.dev.accuracy, plain.dev.accuracy, settings.max_lost)
    for name, score in there.fit_formats.items():
        if score.nll > before.fit_formats[name].nll:
            yield f"the NLL on {name} rises by {score.nll - before.fit_formats[name].nll:.4f}"
        yield from _losses(
            _pooled(score.accuracy, name), _pooled(before.fit_formats[name].accuracy, name), settings.max_lost
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
    candidate: FinalLayerCandidate,
    intercepts: Mapping[str, Sequence[float]],
    model: ModelIdentity,
    name: str,
    task: Task,
) -> Profile:
    tensors = {}
    if candidate.source is not None:
        tensors[INTERCEPT_TENSOR] = np.asarray(intercepts[candidate.source], dtype=np.float32)
    return Profile(
        name=name,
        description=f"Changes the final layer so that the right answers on {task.name} become likelier.",
        method="final-layer",
        model=model,
        final_layer=FinalLayer(
            self_only_attention=candidate.self_only_attention,
            intercept_scale=candidate.intercept_scale,
            gate=candidate.gate,
        ),
        tensors=tensors,
    )


@dataclass
class _Trial:
    """What a candidate is measured with."""

    task: Task
    texts: Mapping[str, Sequence[Window]]
    """By name; those that a fit may look at."""
    predictor: TokenPredictor
    text_predictor: TextPredictor
    settings: FinalLayerSettings

    def measure(self, candidate: FinalLayerCandidate, steering: Steering, plain: MeasuredCandidate | None) -> list[Any]:
        """Return what ``candidate`` does and, if gates are wanted, what it does behind the best one, as plain data."""
        dev = self._on_dev(steering)
        if plain is not None and dev.score.nll > plain.dev.nll:
            return [_to_json(MeasuredCandidate(candidate, dev.score, None))]
        before = self._plain
        evidence = self._evidence(dev, steering)
        found = [_measured(candidate, evidence, before)]
        if self.settings.gates and plain is not None:
            behind = (
                _measured(replace(candidate, gate=gate), evidence.behind(gate, before), before)
                for gate in possible_gates()
            )
            allowed = [one for one in behind if is_allowed(one, plain, self.settings)]
            # Of equals the narrowest: it changes least.
            found += sorted(allowed, key=lambda one: (round(one.dev.nll, 9), _breadth(one.candidate)))[:1]
        return list(map(_to_json, found))

    @cached_property
    def _plain(self) -> Evidence:
        return self._evidence(self._on_dev(UNSTEERED), UNSTEERED)

    def _on_dev(self, steering: Steering) -> Answers:
        return Answers.of(self.predictor.answers(self.task.dev, steering))

    def _evidence(self, dev: Answers, steering: Steering) -> Evidence:
        return Evidence(
            dev=dev,
            fit_formats={
                name: Answers.of(self.predictor.answers(some, steering)) for name, some in self.task.fit_formats.items()
            },
            texts={name: self.text_predictor.token_scores(some, steering) for name, some in self.texts.items()},
        )


def _measured(candidate: FinalLayerCandidate, evidence: Evidence, plain: Evidence) -> MeasuredCandidate:
    fit_formats = {name: answers.score for name, answers in evidence.fit_formats.items()}
    return MeasuredCandidate(
        candidate, evidence.dev.score, OtherMeasurements(fit_formats, evidence.nll_increase(plain))
    )


def _breadth(candidate: FinalLayerCandidate) -> float:
    return 1.0 if candidate.gate is None else candidate.gate.high - candidate.gate.low


def _to_json(measured: MeasuredCandidate) -> dict[str, Any]:
    gate, there = measured.candidate.gate, measured.other
    return {
        "gate": None if gate is None else [gate.low, gate.high],
        "dev": measured.dev.to_json(),
        "other": there
        and {
            "fit_formats": {name: score.to_json() for name, score in there.fit_formats.items()},
            "nll_increase": there.nll_increase,
        },
    }


def _all_measured(candidate: FinalLayerCandidate, found: Sequence[Any]) -> Iterator[MeasuredCandidate]:
    """Yield what :meth:`_Trial.measure` found of ``candidate``."""
    for one in found:
        there = one["other"]
        if there is not None:
            fit_formats = {name: Score.from_json(score) for name, score in there["fit_formats"].items()}
            there = OtherMeasurements(fit_formats, there["nll_increase"])
        gate = None if one["gate"] is None else Gate(low=one["gate"][0], high=one["gate"][1])
        yield MeasuredCandidate(replace(candidate, gate=gate), Score.from_json(one["dev"]), there)


def _searched(settings: FinalLayerSettings, grid: Sequence[MeasuredCandidate]) -> dict[str, JsonValue]:
    """Return what was searched, and every candidate that was measured."""
    points: list[JsonValue] = [
        [
            m.candidate.self_only_attention,
            m.candidate.intercept_scale,
            m.candidate.source,
            round(m.dev.nll, 5),
            round(m.dev.probability, 5),
            m.dev.accuracy.correct,
            m.dev.accuracy.total,
            None if m.other is None else round(m.other.nll_increase, 5),
            None if m.candidate.gate is None else [m.candidate.gate.low, m.candidate.gate.high],
        ]
        for m in grid
    ]
    return {
        "method": "final-layer",
        "most_lost": settings.max_lost,
        "most_drift": settings.max_nll_increase,
        "columns": [
            *("own_attention", "lambda", "intercept", "dev NLL", "dev P(correct)", "right", "asked", "drift", "gate")
        ],
        "points": points,
    }


def _chosen(chosen: MeasuredCandidate, r2: float | None, temperature: float) -> dict[str, JsonValue]:
    return {
        "own_attention": chosen.candidate.self_only_attention,
        "lambda": chosen.candidate.intercept_scale,
        "intercept": chosen.candidate.source,
        "gate": None if chosen.candidate.gate is None else str(chosen.candidate.gate),
        "r2": None if r2 is None else round(r2, 5),
        "drift": None if chosen.other is None else round(chosen.other.nll_increase, 5),
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
