"""Fit the final-layer method of Lv et al. (arXiv:2403.19521): self-only attention and intercept subtraction.

The paper replaces all of the final layer's attention and subtracts a positive share of the intercept. Both shares are
fitted here, and 0 and negative shares are tried too, since what helps one model can harm another. The intercept is that
of the regression (:mod:`steering_profiles.fitting.decomposition`) or the plain mean of the MLP's output, on train.

The paper changes the last position of the prompt only; the candidates are tried there alone and at all positions. The
effects change nothing but the prediction at their own position, so both give the same answers of one token. With
conditions they are also tried where a condition of the task holds, which leaves prompts of other formats alone.

The candidates and the rule that chooses one of them are in :mod:`steering_profiles.fitting.final_layer_candidates`.
With gates (:class:`steering_profiles.final_layer_fields.Gate`) every candidate that is no worse on dev than the plain
model is also tried behind its best allowed gate, which takes no further forward pass
(:mod:`steering_profiles.fitting.gating`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from pydantic import JsonValue

from steering_profiles import __version__
from steering_profiles.errors import FitError
from steering_profiles.evaluation import (
    ArmCalibration,
    CalibrationComparison,
    FinalLayerReplay,
    SideEffects,
    TextPredictor,
    TokenPredictor,
    compare_calibration,
    fitting_texts,
    measure_side_effects,
    text_windows,
    tune_temperature,
)
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer
from steering_profiles.fit_settings import FinalLayerSettings
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.decomposition import decompose, record_layer
from steering_profiles.fitting.final_layer_candidates import (
    PLAIN,
    FinalLayerCandidate,
    MeasuredCandidate,
    RejectedCandidate,
    best_rejected,
    choose_candidate,
    make_candidates,
)
from steering_profiles.fitting.final_layer_evaluation import CandidateEvaluator, measured_from_json
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.schema import ModelIdentity, Profile, Provenance
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.tasks.task import Task
from steering_profiles.tokenization import Vocabulary


@dataclass(frozen=True)
class WithoutGate:
    """Results of the chosen settings without their gate, measured after the choice."""

    test: ArmCalibration
    side_effects: SideEffects


@dataclass(frozen=True)
class FinalLayerResult:
    """A fitted profile, the search that led to it and its measurements."""

    profile: Profile
    settings: FinalLayerSettings
    grid: Sequence[MeasuredCandidate]
    chosen: MeasuredCandidate
    without_nll_limit: MeasuredCandidate
    """The choice among candidates without gates if the NLL of other text did not count."""
    r2: float | None
    """Share of the variance of the final MLP's output on train that the regression explains; None without one."""
    dev: CalibrationComparison
    test: CalibrationComparison
    side_effects: SideEffects
    without_gate: WithoutGate | None
    """None if the chosen candidate has no gate."""
    everywhere: SideEffects | None = None
    """Side effects of the chosen settings at all positions, if they apply at the last token of the prompt alone."""

    @property
    def rejected(self) -> RejectedCandidate | None:
        """The best candidate on dev if it is not allowed; None if it is."""
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
    """Fit a final-layer profile for ``task``.

    The same model, task and settings give the same profile. ``command`` is recorded in its provenance as the command
    that makes it again. Results in ``checkpoint`` from the same fit are not computed again.

    Raises:
        FitError: the settings ask for the regression's intercept, and the train prompts do not determine it.
        TaskError: the task has whole answers; or conditions are to be tried, and the task has none.
    """
    task.require_next_tokens("method final-layer")
    task.require_conditions(settings.conditions)
    checkpoint = FitCheckpoint() if checkpoint is None else checkpoint  # an empty checkpoint is falsy
    progress = progress or Silent()
    recorded = checkpoint.recall("intercepts", lambda: _intercepts(loaded, task, settings, progress))
    intercepts = recorded["vectors"]

    def profile_at(candidate: FinalLayerCandidate) -> Profile:
        return _profile(candidate, intercepts, loaded.identity, name, task)

    def steering_at(candidate: FinalLayerCandidate) -> Steering:
        return UNSTEERED if candidate == PLAIN else Steering((ProfileAtStrength(profile_at(candidate)),))

    replay = FinalLayerReplay(loaded)
    texts = {name: text_windows(loaded, text) for name, text in fitting_texts().items()}
    with TokenPredictor(loaded, replay) as predictor, TextPredictor(loaded, replay) as text_predictor:
        vocabulary = Vocabulary(loaded.tokenizer)
        evaluator = CandidateEvaluator(task, texts, predictor, text_predictor, vocabulary, settings)
        candidates = make_candidates(settings)
        progress.stage("measuring candidates on dev", len(candidates))
        grid: list[MeasuredCandidate] = []
        for candidate in candidates:
            plain = grid[0] if grid else None
            measure = partial(evaluator.measure, candidate, steering_at(candidate), plain)
            grid += measured_from_json(candidate, checkpoint.recall(str(candidate), measure))
            progress.advance()
        chosen = choose_candidate(grid, settings)
        steering = steering_at(chosen.candidate)
        ungated = None if chosen.candidate.gate is None else steering_at(replace(chosen.candidate, gate=None))
        passes = 6 * len(task.dev) + (2 if ungated is None else 4) * len(task.test)
        progress.stage("measuring dev and test, and with tuned temperatures", passes)
        temperature, _ = tune_temperature(predictor, task.dev, progress)
        of_profile, _ = tune_temperature(predictor, task.dev, progress, steering=steering)
        dev, test = (
            compare_calibration(predictor, examples, steering, temperature, progress, profile_temperature=of_profile)
            for examples in (task.dev, task.test)
        )
        without_gate = None
        if ungated is not None:
            on_test = compare_calibration(predictor, task.test, ungated, temperature, progress).profile
            without_gate = WithoutGate(on_test, measure_side_effects(loaded, ungated, progress, replay))
    side_effects = measure_side_effects(loaded, steering, progress, replay)
    everywhere = None
    if chosen.candidate.positions == "last":
        at_all = steering_at(replace(chosen.candidate, positions="all", condition=None))
        everywhere = measure_side_effects(loaded, at_all, progress, replay)
    provenance = Provenance(
        tool_version=__version__,
        command=command,
        task=task.name,
        seed=task.seed,
        split_sizes=task.split_sizes,
        grid=_searched(settings, grid),
        chosen=_chosen(chosen, recorded["r2"], temperature, of_profile),
        dev=figures_of(dev),
        test=figures_of(test),
        side_effects=side_effects.record(),
    )
    return FinalLayerResult(
        profile=profile_at(chosen.candidate).model_copy(
            update={"provenance": provenance, "description": describe(task.name, chosen.candidate, test)}
        ),
        settings=settings,
        grid=grid,
        chosen=chosen,
        without_nll_limit=choose_candidate([m for m in grid if m.candidate.gate is None], settings, limit_nll=False),
        r2=recorded["r2"],
        dev=dev,
        test=test,
        side_effects=side_effects,
        without_gate=without_gate,
        everywhere=everywhere,
    )


def describe(task: str, candidate: FinalLayerCandidate, test: CalibrationComparison) -> str:
    """Return the description of a profile with ``candidate`` by what it does on test beside a tuned temperature."""
    return describe_effect(task, test, changes=candidate != PLAIN)


def describe_effect(task: str, test: CalibrationComparison, *, changes: bool) -> str:
    """Return the description of a profile by what it does on test beside a tuned temperature.

    It says first what a user has to know: that a temperature does better, or which groups are worse. ``changes`` is
    whether the profile changes anything.
    """
    if not changes:
        return f"Changes nothing: no change of the final layer was better on {task} than a tuned temperature."
    both = test.both_tempered
    assert both is not None
    if both.pooled.nll.mean >= 0 or both.pooled.accuracy.mean < 0:
        return (
            f"A tuned temperature does better on {task} than this change of the final layer: with temperatures tuned "
            f"for both, the NLL on test changes by {both.pooled.nll.mean:+.3f} and accuracy by "
            f"{100 * both.pooled.accuracy.mean:+.1f} points. Do not use it for better answers."
        )
    worse = [group for group, change in both.groups.items() if change.is_worse]
    but = f" It makes answers worse on {', '.join(worse)}." if worse else ""
    return f"Changes the final layer so that the right answers on {task} become likelier.{but}"


def _intercepts(loaded: LoadedModel, task: Task, settings: FinalLayerSettings, progress: Progress) -> dict[str, Any]:
    """Return the intercept of each source, and the R2 of the regression."""
    record = record_layer(loaded, task.train, loaded.anatomy.sizes.layers - 1, progress)
    if "regression" not in settings.sources:
        return {"vectors": {"mean": record.mlp.mean(dim=0).tolist()}, "r2": None}
    try:
        found = decompose(record)
    except FitError as exc:
        raise FitError(
            f"cannot fit the regression intercept on {task.name}: {exc}; the source 'mean' needs no regression"
        ) from exc
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
        when=candidate.when,
        tensors=tensors,
    )


def _searched(settings: FinalLayerSettings, grid: Sequence[MeasuredCandidate]) -> dict[str, JsonValue]:
    """Return the searched settings and the measurements of every candidate, for the provenance."""
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
            m.candidate.positions,
            round(m.dev.temperature, 4),
            round(m.dev.tempered_nll, 5),
            *([None if m.candidate.condition is None else str(m.candidate.condition)] if settings.conditions else []),
        ]
        for m in grid
    ]
    return {
        "method": "final-layer",
        "most_lost": settings.max_lost,
        "most_drift": settings.max_nll_increase,
        "columns": [
            *("own_attention", "lambda", "intercept", "dev NLL", "dev P(correct)", "right", "asked", "drift", "gate"),
            *("positions", "dev temperature", "dev NLL at it"),
            *(["condition"] if settings.conditions else []),
        ],
        "points": points,
    }


def _chosen(chosen: MeasuredCandidate, r2: float | None, temperature: float, of_profile: float) -> dict[str, JsonValue]:
    return {
        "own_attention": chosen.candidate.self_only_attention,
        "lambda": chosen.candidate.intercept_scale,
        "intercept": chosen.candidate.source,
        "gate": None if chosen.candidate.gate is None else str(chosen.candidate.gate),
        "positions": chosen.candidate.positions,
        **({} if chosen.candidate.condition is None else {"condition": str(chosen.candidate.condition)}),
        "r2": None if r2 is None else round(r2, 5),
        "drift": None if chosen.other is None else round(chosen.other.nll_increase, 5),
        "temperature": round(temperature, 5),
        "profile_temperature": round(of_profile, 5),
    }


def figures_of(compared: CalibrationComparison) -> dict[str, JsonValue]:
    """Return the figures of a provenance: accuracy per group, and P(correct), NLL and calibration error over all."""
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
    if compared.both_tempered is not None:
        facts["both at their temperatures"] = compared.both_tempered.to_json()
    return facts
