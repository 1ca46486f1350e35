"""The report of a fit: the search, and results of the profile on unseen prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steering_profiles.evaluation import (
    Accuracy,
    CalibrationComparison,
    SideEffects,
    TokenPredictor,
    tune_and_compare,
)
from steering_profiles.fitting import FinalLayerGroupsResult, FinalLayerResult, FitResult
from steering_profiles.fitting.choice import found_sets, steering_of
from steering_profiles.fitting.final_layer_candidates import PLAIN
from steering_profiles.fitting.stepwise import validation_set
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.reports.attention import attention_patterns
from steering_profiles.reports.report import (
    TEST,
    FinalLayerSearch,
    MethodResult,
    NoHarm,
    RankedComponent,
    Report,
    ReportedRanking,
    ReportedStep,
)
from steering_profiles.schema import Profile
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.tasks.task import Example, Task

_HEADS_SHOWN = 6
"""Maximum number of heads whose attention patterns are shown."""


def report_of_fit(
    loaded: LoadedModel,
    task: Task,
    held_out: Mapping[str, Sequence[Example]],
    result: FitResult,
    others: Sequence[FitResult] = (),
    progress: Progress | None = None,
) -> Report:
    """Return the report of ``result``, compared with the results ``others`` of other methods on the same splits.

    ``held_out`` are prompts in held-out formats, which no fit uses, by format.
    """
    progress = progress or Silent()
    scales = result.choice.scales
    heads = sorted(
        (component for component in scales if component.kind == "head"),
        key=lambda component: (-abs(scales[component] - 1), component),
    )
    provenance = result.profile.provenance
    progress.stage("measuring held-out formats", (2 + len(others)) * sum(map(len, held_out.values())))
    with TokenPredictor(loaded) as predictor:

        def on_held_out(steering: Steering) -> dict[str, Accuracy]:
            return {name: predictor.accuracy(examples, steering, progress) for name, examples in held_out.items()}

        choices = [one.choice for one in (result, *others)]
        plain = on_held_out(UNSTEERED)
        steered, *of_others = [on_held_out(steering_of(c.sets, loaded.identity)) for c in choices]
    return Report(
        profile=result.profile,
        command=provenance.command if provenance is not None else "",
        accuracy={TEST: (result.before, result.after)} | {name: (plain[name], steered[name]) for name in held_out},
        side_effects=result.side_effects,
        ranking=_ranking(result),
        grid=result.choice.grid,
        path=_path(result),
        validation_set=_validation_set(task, result),
        no_harm=_no_harm(result),
        comparison=[
            _method(one, on) for one, on in zip((result, *others), (steered, *of_others), strict=True) if others
        ],
        attention=attention_patterns(loaded, heads[:_HEADS_SHOWN], task.test[-1]) if heads else (),
    )


def report_of_final_layer(
    loaded: LoadedModel,
    task: Task,
    held_out: Mapping[str, Sequence[Example]],
    result: FinalLayerResult,
    progress: Progress | None = None,
) -> Report:
    """Return the report of ``result``. ``held_out`` are prompts in held-out formats, by format.

    Temperatures for a format are tuned on the prompts of ``task`` in it that the fit used, or else on dev.
    """
    steering = UNSTEERED if result.chosen.candidate == PLAIN else Steering((ProfileAtStrength(result.profile),))
    compared = {TEST: result.test} | _on_formats(loaded, task, held_out, steering, progress or Silent())
    return replace(
        _of_final_layer(result.profile, compared, result.side_effects),
        final_layer=FinalLayerSearch(result.grid, result.chosen, result.without_nll_limit, result.rejected),
        without_gate=result.without_gate,
        everywhere=result.everywhere,
    )


def report_of_final_layer_groups(
    loaded: LoadedModel,
    task: Task,
    held_out: Mapping[str, Sequence[Example]],
    result: FinalLayerGroupsResult,
    progress: Progress | None = None,
) -> Report:
    """Return the report of ``result``, as :func:`report_of_final_layer` does."""
    steering = UNSTEERED if result.profile.changes_nothing else Steering((ProfileAtStrength(result.profile),))
    compared = {TEST: result.test} | _on_formats(loaded, task, held_out, steering, progress or Silent())
    return replace(_of_final_layer(result.profile, compared, result.side_effects), group_choices=result.choices)


def _on_formats(
    loaded: LoadedModel,
    task: Task,
    held_out: Mapping[str, Sequence[Example]],
    steering: Steering,
    progress: Progress,
) -> dict[str, CalibrationComparison]:
    dev = {TEST: task.dev, **{name: some for name, some in task.fit_formats.items() if name in held_out}}
    of_dev = 4 * sum(len(dev.get(name, dev[TEST])) for name in held_out)
    progress.stage("measuring held-out formats", 2 * sum(map(len, held_out.values())) + of_dev)
    with TokenPredictor(loaded) as predictor:
        return tune_and_compare(predictor, dev, held_out, steering, progress)


def _of_final_layer(
    profile: Profile, compared: Mapping[str, CalibrationComparison], side_effects: SideEffects
) -> Report:
    return Report(
        profile=profile,
        command=profile.provenance.command if profile.provenance is not None else "",
        accuracy={
            name: (one.baseline.all_prompts.accuracy, one.profile.all_prompts.accuracy)
            for name, one in compared.items()
        },
        side_effects=side_effects,
        calibration=compared,
    )


def _ranking(result: FitResult) -> ReportedRanking:
    found, scales = result.ranking.reliability, result.choice.scales
    return ReportedRanking(
        groups=result.ranking.groups,
        components=tuple(
            RankedComponent(component, tuple(accuracy), precision, recall, f1, scales.get(component))
            for component, accuracy, precision, recall, f1 in zip(
                result.ranking.components,
                found.accuracy.tolist(),
                found.precision.tolist(),
                found.recall.tolist(),
                found.f1.tolist(),
                strict=True,
            )
        ),
        accuracy_threshold=result.settings.accuracy_threshold,
    )


def _path(result: FitResult) -> list[ReportedStep]:
    return [
        ReportedStep(
            step=point.step,
            components=len(point.scales) + sum(len(one.scales) for one in found.beside),
            total_change=round(point.total_change + sum(one.total_change for one in found.beside), 9),
            errors=point.errors,
            total=point.accuracy.total,
            nll_increase=point.nll_increase,
            chosen=point.step == found.chosen.step,
            round=place,
        )
        for place, found in enumerate(found_sets(result.choice.rounds), start=1)
        for point in found.path
    ]


def _validation_set(task: Task, result: FitResult) -> dict[str, int]:
    if not result.choice.path:
        return {}
    used = {id(example) for example in validation_set(task, result.settings.stepwise)}
    sources = {"dev": task.dev, **task.fit_formats}
    return {name: sum(id(example) in used for example in examples) for name, examples in sources.items()}


def _no_harm(result: FitResult) -> NoHarm | None:
    limit = result.settings.stepwise.max_lost
    if limit is None or not result.choice.path:
        return None
    rounds = [str(one) for one in result.choice.rounds] if result.settings.stepwise.in_turn else []
    return NoHarm(limit, tuple(result.choice.harm), tuple(result.choice.refused), tuple(rounds))


def _method(result: FitResult, held_out: Mapping[str, Accuracy]) -> MethodResult:
    scales = sorted(scale for one in result.choice.sets for scale in one.scales.values())
    pooled = {f"{name}: {group}": counts for name, one in held_out.items() for group, counts in one.counts.items()}
    return MethodResult(
        name=result.settings.method,
        components=len(result.choice.scales),
        scale="" if not scales else f"{scales[0]:g}" if scales[0] == scales[-1] else f"{scales[0]:g}..{scales[-1]:g}",
        accuracy=result.after,
        held_out=Accuracy(pooled) if pooled else None,
        nll_increase=result.side_effects.worst.nll_increase,
    )
