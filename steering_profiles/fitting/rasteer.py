"""Fit a RASteer profile (arXiv:2507.00322): project, rank, choose components and scales on dev, report on test."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from steering_profiles.fields import strength_text
from steering_profiles.fit_settings import FitSettings, StepwiseSettings
from steering_profiles.fitting.answer_tokens import AnswerTokens
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.choice import Choice, found_sets, profile_of, steering_of
from steering_profiles.fitting.circuit import rank_by_patching
from steering_profiles.fitting.components import Component, Scales, ScaleSet
from steering_profiles.fitting.grid import GridPoint, make_grid, search_grid
from steering_profiles.fitting.no_harm import (
    Candidate,
    ChosenCandidate,
    GroupChange,
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
from steering_profiles.fitting.rounds import Round, search_at_once, search_in_turn
from steering_profiles.fitting.stepwise import SearchStep, choose_step, search_path, validation_set
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.schema import Profile, Provenance
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
    task.require_conditions(settings.stepwise.conditions)
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
        profile = profile_of(choice.sets, loaded.identity, name, task.name)
        steering = steering_of(choice.sets, loaded.identity)
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

    def accuracy(self, sets: Sequence[ScaleSet], examples: Sequence[Example]) -> Accuracy:
        return self.predictor.accuracy(examples, steering_of(sets, self.loaded.identity))

    def nll_increase(self, sets: Sequence[ScaleSet]) -> float:
        """Return the largest increase of the NLL over the texts, as a share of the plain model's NLL."""
        return self.text_predictor.measure(self.texts, steering_of(sets, self.loaded.identity)).worst.nll_increase

    def where_none_may_lose(self, sets: Sequence[ScaleSet]) -> dict[str, Accuracy]:
        """Return the accuracy on dev and on the choosing formats."""
        formats = {"dev": self.task.dev, **self.task.choosing_formats}
        return {name: self.accuracy(sets, examples) for name, examples in formats.items()}


def _choose_stepwise(
    evaluator: _Evaluator, settings: FitSettings, checkpoint: FitCheckpoint, progress: Progress
) -> Choice:
    prompts = validation_set(evaluator.task, settings.stepwise)

    def search(condition: Condition | None, beside: Sequence[ScaleSet]) -> list[SearchStep]:
        def measure(scales: Scales) -> tuple[Accuracy, float]:
            sets = (*beside, ScaleSet(scales, condition))
            return evaluator.accuracy(sets, prompts), evaluator.nll_increase(sets)

        return search_path(
            evaluator.loaded,
            evaluator.task,
            round_robin(list(evaluator.texts.values())),
            settings.kinds,
            measure,
            settings=settings.stepwise,
            condition=condition,
            beside=beside,
            checkpoint=checkpoint,
            progress=progress,
        )

    if settings.stepwise.max_lost is None:
        path = search(None, ())
        best = choose_step(path, settings.stepwise.max_nll_increase)
        sets = (ScaleSet(best.scales),)
        only = Round((None,), path, best)
        return Choice(sets, evaluator.accuracy(sets, evaluator.task.dev), _facts([only]), rounds=(only,))
    search_all = search_in_turn if settings.stepwise.in_turn else search_at_once
    rounds, chosen = search_all(
        evaluator.task.conditions if settings.stepwise.conditions else (),
        search,
        partial(_choose_without_harm, evaluator, settings=settings.stepwise, checkpoint=checkpoint),
    )
    refused = tuple(one for each in rounds for one in each.refused)
    facts = _facts(rounds) | {
        "most_lost_by": str(chosen.changes[0]) if chosen.changes else None,
        "refused": list(refused),
    }
    if settings.stepwise.in_turn:
        facts["rounds"] = [str(one) for one in rounds]
    return Choice(
        chosen.candidate.sets,
        evaluator.accuracy(chosen.candidate.sets, evaluator.task.dev),
        facts,
        rounds=rounds,
        harm=chosen.changes,
        refused=refused,
    )


def _facts(rounds: Sequence[Round]) -> dict[str, JsonValue]:
    """Return the chosen step, or those of all sets where there are several."""
    found = found_sets(rounds)
    return found[0].to_json() if len(found) == 1 else {"sets": [one.to_json() for one in found]}


def _choose_without_harm(
    evaluator: _Evaluator,
    paths: Sequence[Sequence[Candidate]],
    *,
    settings: StepwiseSettings,
    checkpoint: FitCheckpoint,
) -> ChosenCandidate:
    """Return the best step of ``paths`` that does no harm; each path was searched under one condition or none."""

    def on_formats(candidate: Candidate, name: str) -> dict[str, Accuracy]:
        def made() -> dict[str, JsonValue]:
            found = evaluator.where_none_may_lose(candidate.sets)
            return {name: accuracy.to_json() for name, accuracy in found.items()}

        found: Any = checkpoint.recall(f"choosing formats of {name}", made)
        return {name: Accuracy.from_json(counts) for name, counts in found.items()}

    def changes_of(candidate: Candidate) -> tuple[GroupChange, ...]:
        beside = f", beside {len(candidate.beside)}" if candidate.beside else ""
        return group_changes(plain, on_formats(candidate, f"{candidate}{beside}"))

    unsteered = Candidate(replace(paths[0][0].point, scales={}))
    plain = on_formats(unsteered, "step 0")
    return choose_candidate(paths, changes_of, settings.max_nll_increase, settings.max_lost or 0.0)


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
            lambda: evaluator.accuracy([ScaleSet(scales_at(point))], examples).to_json(),
        )
        return Accuracy.from_json(found)

    points = make_grid([min(k, len(order)) for k in settings.top_k], settings.alphas)
    best, grid = search_grid(points, evaluator.task.dev, measure, progress)
    facts: dict[str, JsonValue] = {
        "k": best.point.k,
        "alpha": best.point.alpha,
        "order": [str(component) for component in order[: best.point.k]],
    }
    return Choice((ScaleSet(scales_at(best.point)),), best.accuracy, facts, grid=grid)


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
        paths: list[JsonValue] = [_recorded(one.path) for one in found_sets(choice.rounds)]
        searched |= {"path": paths[0]} if len(paths) == 1 else {"paths": paths}
    else:
        searched["points"] = [[m.point.k, m.point.alpha, m.accuracy.correct, m.accuracy.total] for m in choice.grid]
    return searched


def _recorded(path: Sequence[SearchStep]) -> list[JsonValue]:
    return [
        [p.step, len(p.scales), p.total_change, p.accuracy.correct, p.accuracy.total, round(p.nll_increase, 5)]
        for p in path
    ]
