"""Fit a RASteer profile (arXiv:2507.00322): project, rank, choose k and alpha on dev, report on test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from steering_profiles import __version__
from steering_profiles.evaluation import Accuracy, TokenPredictor
from steering_profiles.fitting.grid import ALPHA, TOP_K, Measured, Point, make_grid, search
from steering_profiles.fitting.projection import project_heads
from steering_profiles.fitting.ranking import ACCURACY_THRESHOLD, PROMOTION_THRESHOLD, Metric, measure_reliability, rank
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.schema import HeadScale, Profile, Provenance
from steering_profiles.steering import AppliedProfile, Steering
from steering_profiles.tasks import Task


@dataclass(frozen=True)
class FitSettings:
    """What the fit searches over.

    Raises:
        ValueError: a number of heads or a scale that cannot be searched; the message names it.
    """

    top_k: tuple[int, ...] = TOP_K
    """Numbers of heads; more than the model has means all of them."""
    alphas: tuple[float, ...] = ALPHA
    metric: Metric = "f1"

    def __post_init__(self) -> None:
        if not self.top_k or not self.alphas:
            raise ValueError("k and alpha each need at least one value")
        for k in self.top_k:
            if k < 0:
                raise ValueError(f"k is {k}; allowed: whole numbers from 0")
        for alpha in self.alphas:
            if not 1 < alpha < math.inf:  # false for NaN too
                raise ValueError(f"alpha is {alpha:g}; allowed: finite numbers above 1")


@dataclass(frozen=True)
class FitResult:
    """A fitted profile and what the choice rests on."""

    profile: Profile
    chosen: Measured
    grid: tuple[Measured, ...]
    before: Accuracy
    """Test accuracy of the plain model."""
    after: Accuracy
    """Test accuracy with the profile."""


def fit_heads(
    loaded: LoadedModel,
    task: Task,
    *,
    name: str,
    command: str,
    settings: FitSettings = FitSettings(),
    progress: Progress | None = None,
) -> FitResult:
    """Fit a profile of attention-head scales for ``task``.

    ``command`` is recorded as what makes the profile again. The same model, task and settings give the same profile.
    """
    progress = progress or Silent()
    ranked = rank_heads(loaded, task, settings.metric, progress)

    def profile_at(point: Point) -> Profile:
        heads = sorted(ranked[: point.k])
        return Profile(
            name=name,
            description=f"Scales the {point.k} attention heads that most reliably promote the right answer on "
            f"{task.name} by {point.alpha:g}.",
            method="rasteer",
            model=loaded.identity,
            heads=tuple(HeadScale(layer=layer, head=head, scale=point.alpha) for layer, head in heads),
        )

    def steering_at(point: Point) -> Steering:
        return (AppliedProfile(profile_at(point)),)

    with TokenPredictor(loaded) as predictor:
        chosen, grid = search(
            make_grid([min(k, len(ranked)) for k in settings.top_k], settings.alphas),
            task.dev,
            lambda point, examples: predictor.accuracy(examples, steering_at(point)),
            progress,
        )
        progress.stage("measuring test", 2 * len(task.test))
        before = predictor.accuracy(task.test, progress=progress)
        after = predictor.accuracy(task.test, steering_at(chosen.point), progress)

    provenance = Provenance(
        tool_version=__version__,
        command=command,
        task=task.name,
        seed=task.seed,
        split_sizes=task.split_sizes,
        grid={
            "metric": settings.metric,
            "promotion_threshold": PROMOTION_THRESHOLD,
            "accuracy_threshold": ACCURACY_THRESHOLD,
            "points": [_point_record(measured) for measured in grid],
        },
        chosen={
            "k": chosen.point.k,
            "alpha": chosen.point.alpha,
            "ranking": [list(head) for head in ranked[: chosen.point.k]],
        },
        dev={"after": dict(chosen.accuracy.percent)},
        test={"before": dict(before.percent), "after": dict(after.percent)},
    )
    profile = profile_at(chosen.point).model_copy(update={"provenance": provenance})
    return FitResult(profile, chosen, tuple(grid), before, after)


def rank_heads(
    loaded: LoadedModel, task: Task, metric: Metric, progress: Progress | None = None
) -> list[tuple[int, int]]:
    """Return every attention head as ``(layer, head)``, the most reliable on the task's train split first."""
    projection = project_heads(loaded, task.train, list(task.answers.values()), progress)
    reliability = measure_reliability(
        projection.candidates.flatten(0, 1), projection.maximum.flatten(0, 1), _answers(task), task.seed
    )
    return [divmod(component, loaded.anatomy.sizes.heads) for component in rank(reliability, metric)]


def _answers(task: Task) -> Sequence[int]:
    index = {group: i for i, group in enumerate(task.groups)}
    return [index[example.group] for example in task.train]


def _point_record(measured: Measured) -> list[JsonValue]:
    """``[k, alpha, right, prompts]``: compact, since there are many."""
    return [measured.point.k, measured.point.alpha, measured.accuracy.right, measured.accuracy.asked]
