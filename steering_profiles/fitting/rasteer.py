"""Fit a RASteer profile (arXiv:2507.00322): project, rank, choose components and scales on dev, report on test."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from steering_profiles import __version__
from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError
from steering_profiles.evaluation import (
    Accuracy,
    SideEffects,
    TextPredictor,
    TokenPredictor,
    Window,
    fitting_texts,
    measure_side_effects,
    text_windows,
)
from steering_profiles.fit_settings import FitSettings, StepwiseSettings
from steering_profiles.fitting.answer_tokens import AnswerTokens
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.choice import Choice, profile_of, steering_of
from steering_profiles.fitting.circuit import rank_by_patching
from steering_profiles.fitting.components import Component, Scales
from steering_profiles.fitting.grid import GridPoint, make_grid, search_grid
from steering_profiles.fitting.no_harm import (
    Candidate,
    ChosenCandidate,
    choose_candidate,
    group_changes,
)
from steering_profiles.fitting.projection import (
    PROMOTION_THRESHOLD,
    Projection,
    project_heads,
    project_neurons,
    record_activations,
    select_neurons,
)
from steering_profiles.fitting.ranking import ComponentRanking, rank
from steering_profiles.fitting.stepwise import SearchStep, choose_step, search_path, validation_set
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.schema import Profile, Provenance, strength_text
from steering_profiles.tasks.task import Example, Task, next_token_examples, round_robin

_WINDOW = 128
"""Tokens in a window of other text."""


@dataclass(frozen=True)
class FitResult:
    """A fitted profile, the search that led to it and its measurements."""

    profile: Profile
    settings: FitSettings
    choice: Choice
    ranking: ComponentRanking
    before: Accuracy
    """Test accuracy of the plain model."""
    after: Accuracy
    """Test accuracy with the profile."""
    side_effects: SideEffects


def fit(
    loaded: LoadedModel,
    task: Task,
    *,
    name: str,
    command: str,
    settings: FitSettings = FitSettings(),
    ranking: ComponentRanking | None = None,
    checkpoint: FitCheckpoint | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Fit a profile of component scales for ``task``.

    The same model, task and settings give the same profile. ``command`` is recorded in its provenance as the command
    that makes it again. Results in ``checkpoint`` from the same fit are not computed again. ``ranking`` can be given if
    another fit of the task with the same components and metric has already computed it.

    Raises:
        TaskError: the method is circuit, and the task has no counterfactual prompts; or conditions are to be tried, and
            the task has none.
        ModelError: the settings ask for neurons, and this model's neurons cannot be scaled.
    """
    if "neuron" in settings.kinds:
        loaded.anatomy.require_neurons()
    checkpoint = FitCheckpoint() if checkpoint is None else checkpoint  # an empty checkpoint is falsy
    progress = progress or Silent()
    if settings.method == "circuit" and not task.pairs:
        raise TaskError(f"method is circuit, but task {task.name} has no counterfactual prompts; choose another method")
    if settings.stepwise.conditions and not task.conditions:
        raise TaskError(f"conditions are to be tried, but task {task.name} has none; leave --conditions out")
    ranking = ranking or ComponentRanking.from_json(
        checkpoint.recall("ranking", lambda: rank_components(loaded, task, settings, progress).to_json())
    )
    texts = {name: text_windows(loaded, text, _WINDOW) for name, text in fitting_texts().items()}
    with TokenPredictor(loaded) as predictor, TextPredictor(loaded) as text_predictor:
        evaluator = _Evaluator(loaded, task, texts, predictor, text_predictor)
        if settings.method == "stepwise":
            choice = _choose_stepwise(evaluator, settings, checkpoint, progress)
        else:
            choice = _choose_on_grid(
                evaluator, _order(loaded, task, settings, ranking, progress), settings, checkpoint, progress
            )
        profile = profile_of(choice.scales, loaded.identity, name, task.name, choice.condition)
        steering = steering_of(choice.scales, loaded.identity, choice.condition)
        progress.stage("measuring test", 2 * len(task.test))
        before = predictor.accuracy(task.test, progress=progress)
        after = predictor.accuracy(task.test, steering, progress)
    side_effects = measure_side_effects(loaded, steering, progress)
    provenance = Provenance(
        tool_version=__version__,
        command=command,
        task=task.name,
        seed=task.seed,
        split_sizes=task.split_sizes,
        grid=_searched(settings, choice),
        chosen=choice.facts,
        dev={"after": dict(choice.dev.percent)},
        test={"before": dict(before.percent), "after": dict(after.percent)},
        side_effects=side_effects.record(),
    )
    return FitResult(
        profile.model_copy(update={"provenance": provenance}), settings, choice, ranking, before, after, side_effects
    )


def rank_components(
    loaded: LoadedModel, task: Task, settings: FitSettings, progress: Progress | None = None
) -> ComponentRanking:
    """Rank the model's heads, its neurons or both on the task's train split, most reliable first.

    Of a whole answer every token counts, given those before it.
    """
    train = tuple(next_token_examples(task.train))
    answer_tokens = AnswerTokens.of(task, train)
    neurons = select_neurons(loaded, answer_tokens, progress) if "neuron" in settings.kinds else {}
    recorded = record_activations(loaded, train, neurons, progress)
    parts: list[Projection] = []
    if "head" in settings.kinds:
        parts.append(project_heads(loaded, recorded, answer_tokens, progress))
    if "neuron" in settings.kinds:
        parts.append(project_neurons(loaded, recorded, neurons, answer_tokens))
    projection = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return rank(
        projection, answer_tokens, metric=settings.metric, threshold=settings.accuracy_threshold, seed=task.seed
    )


@dataclass(frozen=True)
class _Evaluator:
    """Measures scales on prompts and on other text."""

    loaded: LoadedModel
    task: Task
    texts: Mapping[str, Sequence[Window]]
    """The fitting texts, by name."""
    predictor: TokenPredictor
    text_predictor: TextPredictor

    def accuracy(self, scales: Scales, examples: Sequence[Example], condition: Condition | None = None) -> Accuracy:
        return self.predictor.accuracy(examples, steering_of(scales, self.loaded.identity, condition))

    def nll_increase(self, scales: Scales, condition: Condition | None = None) -> float:
        """Return the largest increase of the NLL over the texts, as a share of the plain model's NLL."""
        steering = steering_of(scales, self.loaded.identity, condition)
        return self.text_predictor.measure(self.texts, steering).worst.nll_increase

    def where_none_may_lose(self, scales: Scales, condition: Condition | None = None) -> dict[str, Accuracy]:
        """Return the accuracy on dev and on the choosing formats."""
        formats = {"dev": self.task.dev, **self.task.choosing_formats}
        return {name: self.accuracy(scales, examples, condition) for name, examples in formats.items()}


def _choose_stepwise(
    evaluator: _Evaluator, settings: FitSettings, checkpoint: FitCheckpoint, progress: Progress
) -> Choice:
    prompts = validation_set(evaluator.task, settings.stepwise)

    def search(condition: Condition | None = None) -> list[SearchStep]:
        return search_path(
            evaluator.loaded,
            evaluator.task,
            round_robin(list(evaluator.texts.values())),
            settings.kinds,
            lambda scales: (evaluator.accuracy(scales, prompts, condition), evaluator.nll_increase(scales, condition)),
            settings=settings.stepwise,
            condition=condition,
            checkpoint=checkpoint,
            progress=progress,
        )

    path = search()
    if settings.stepwise.max_lost is None:
        best = choose_step(path, settings.stepwise.max_nll_increase)
        return Choice(best.scales, evaluator.accuracy(best.scales, evaluator.task.dev), _facts(best), path=path)
    paths = [[Candidate(point) for point in path]]
    for condition in evaluator.task.conditions if settings.stepwise.conditions else ():
        paths.append([Candidate(point, condition if point.scales else None) for point in search(condition)])
    chosen = _choose_without_harm(evaluator, paths, settings.stepwise, checkpoint)
    best, when = chosen.candidate.point, chosen.candidate.condition
    facts = _facts(best) | {
        "most_lost_by": str(chosen.changes[0]) if chosen.changes else None,
        "refused": list(chosen.refused),
        "when": None if when is None else when.model_dump(mode="json"),
    }
    return Choice(
        best.scales,
        evaluator.accuracy(best.scales, evaluator.task.dev, when),
        facts,
        path=[candidate.point for candidate in chosen.path],
        condition=when,
        harm=chosen.changes,
        refused=chosen.refused,
    )


def _facts(best: SearchStep) -> dict[str, JsonValue]:
    return {
        "step": best.step,
        "components": len(best.scales),
        "disturbance": best.total_change,
        "drift": round(best.nll_increase, 5),
    }


def _choose_without_harm(
    evaluator: _Evaluator, paths: Sequence[Sequence[Candidate]], settings: StepwiseSettings, checkpoint: FitCheckpoint
) -> ChosenCandidate:
    """Return the best step of ``paths`` that does no harm; each path was searched under one condition or none."""

    def on_formats(candidate: Candidate) -> dict[str, Accuracy]:
        def made() -> dict[str, JsonValue]:
            found = evaluator.where_none_may_lose(candidate.point.scales, candidate.condition)
            return {name: accuracy.to_json() for name, accuracy in found.items()}

        found: Any = checkpoint.recall(f"choosing formats of {candidate}", made)
        return {name: Accuracy.from_json(counts) for name, counts in found.items()}

    plain = on_formats(paths[0][0])
    return choose_candidate(
        paths,
        lambda candidate: group_changes(plain, on_formats(candidate)),
        settings.max_nll_increase,
        settings.max_lost or 0.0,
    )


def _choose_on_grid(
    evaluator: _Evaluator,
    order: Sequence[Component],
    settings: FitSettings,
    checkpoint: FitCheckpoint,
    progress: Progress,
) -> Choice:
    slices: dict[GridPoint, int] = {}

    def scales_at(point: GridPoint) -> Scales:
        return dict.fromkeys(order[: point.k], point.alpha)

    def measure(point: GridPoint, examples: Sequence[Example]) -> Accuracy:
        part = slices[point] = slices.get(point, 0) + 1
        found = checkpoint.recall(
            f"grid {point.k} {strength_text(point.alpha)} {part}",
            lambda: evaluator.accuracy(scales_at(point), examples).to_json(),
        )
        return Accuracy.from_json(found)

    points = make_grid([min(k, len(order)) for k in settings.top_k], settings.alphas)
    best, grid = search_grid(points, evaluator.task.dev, measure, progress)
    facts: dict[str, JsonValue] = {
        "k": best.point.k,
        "alpha": best.point.alpha,
        "order": [str(component) for component in order[: best.point.k]],
    }
    return Choice(scales_at(best.point), best.accuracy, facts, grid=grid)


def _order(
    loaded: LoadedModel, task: Task, settings: FitSettings, ranking: ComponentRanking, progress: Progress
) -> Sequence[Component]:
    if settings.method == "circuit":
        return rank_by_patching(loaded, task.pairs, progress)
    if settings.method == "random":
        drawn = sorted(ranking.components)
        random.Random(f"random heads {task.seed}").shuffle(drawn)
        return drawn
    return ranking.components


def _searched(settings: FitSettings, choice: Choice) -> dict[str, JsonValue]:
    """Return the searched settings and the measurements of every point, for the provenance."""
    searched: dict[str, JsonValue] = {
        "method": settings.method,
        "components": list(settings.kinds),
        "metric": settings.metric,
        "promotion_threshold": PROMOTION_THRESHOLD,
        "accuracy_threshold": settings.accuracy_threshold,
    }
    if choice.path:
        searched["stepwise"] = {**settings.stepwise.to_json()}
        searched["path"] = [
            [p.step, len(p.scales), p.total_change, p.accuracy.correct, p.accuracy.total, round(p.nll_increase, 5)]
            for p in choice.path
        ]
    else:
        searched["points"] = [[m.point.k, m.point.alpha, m.accuracy.correct, m.accuracy.total] for m in choice.grid]
    return searched
