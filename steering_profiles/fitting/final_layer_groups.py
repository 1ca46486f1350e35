"""Fit the final layer for each group of a task alone: settings, intercept and condition of its own.

One setting for all groups is a compromise: what helps one group harms another, and the mean output of the MLP over all
of them says less about each. Where a group's prompts can be recognised by their text (``Task.group_conditions``) it
gets its own settings (:mod:`.group_candidates`), and the intercept of its own train and dev prompts. They apply where
the group's condition holds, at the last token of the prompt alone. Everything else is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from steering_profiles import __version__
from steering_profiles.conditions import Condition
from steering_profiles.evaluation import (
    CalibrationComparison,
    FinalLayerReplay,
    SideEffects,
    TokenPredictor,
    compare_calibration,
    measure_side_effects,
    tune_temperature,
)
from steering_profiles.final_layer_fields import ConditionalFinalLayer, intercept_tensor
from steering_profiles.fit_settings import FinalLayerSettings
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.decomposition import LayerRecord, record_layer
from steering_profiles.fitting.final_layer import describe_effect, figures_of
from steering_profiles.fitting.group_candidates import FOLDS, GroupChoice, GroupSearch, intercepts_of
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.schema import ModelIdentity, Profile, Provenance
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.tasks.task import Example, Task


@dataclass(frozen=True)
class FinalLayerGroupsResult:
    """A fitted profile, the choice for each group and the measurements of all of it together."""

    profile: Profile
    settings: FinalLayerSettings
    choices: Sequence[GroupChoice]
    dev: CalibrationComparison
    """On dev, whose prompts took part in the choice."""
    test: CalibrationComparison
    side_effects: SideEffects


def fit_final_layer_groups(
    loaded: LoadedModel,
    task: Task,
    *,
    name: str,
    command: str,
    settings: FinalLayerSettings,
    checkpoint: FitCheckpoint | None = None,
    progress: Progress | None = None,
) -> FinalLayerGroupsResult:
    """Fit settings of the final layer for each group of ``task``.

    The same model, task and settings give the same profile. ``command`` is recorded in its provenance as the command
    that makes it again. Results in ``checkpoint`` from the same fit are not computed again.

    Raises:
        FitError: the prompts of a group do not determine an intercept, or all of them have the same answer.
        TaskError: the task has whole answers, or its groups cannot be recognised by a condition.
    """
    task.require_next_tokens("method final-layer")
    task.require_group_conditions()
    checkpoint = FitCheckpoint() if checkpoint is None else checkpoint  # an empty checkpoint is falsy
    progress = progress or Silent()
    asked = {group: [one for one in (*task.train, *task.dev) if one.group == group] for group in task.groups}
    records = {group: _record(loaded, examples, progress) for group, examples in asked.items()}
    with TokenPredictor(loaded, FinalLayerReplay(loaded)) as predictor:
        search = GroupSearch(predictor, loaded.identity, settings, checkpoint)
        progress.stage("measuring candidates by cross-validation", len(asked) * len(search.candidates))
        choices = [
            search.choose(group, task.group_conditions[group], examples, records[group], progress)
            for group, examples in asked.items()
        ]
        profile = _profile(choices, records, settings, loaded.identity, name)
        steering = UNSTEERED if profile.changes_nothing else Steering((ProfileAtStrength(profile),))
        progress.stage("measuring dev and test, and with tuned temperatures", 6 * len(task.dev) + 2 * len(task.test))
        temperature, _ = tune_temperature(predictor, task.dev, progress)
        of_profile, _ = tune_temperature(predictor, task.dev, progress, steering=steering)
        dev, test = (
            compare_calibration(predictor, examples, steering, temperature, progress, profile_temperature=of_profile)
            for examples in (task.dev, task.test)
        )
    side_effects = measure_side_effects(loaded, steering, progress, FinalLayerReplay(loaded))
    provenance = Provenance(
        tool_version=__version__,
        command=command,
        task=task.name,
        seed=task.seed,
        split_sizes=task.split_sizes,
        grid=_searched(choices, settings),
        chosen={
            **{one.group: None if one.chosen is None else str(one.chosen.candidate) for one in choices},
            "temperature": round(temperature, 5),
            "profile_temperature": round(of_profile, 5),
        },
        dev=figures_of(dev),
        test=figures_of(test),
        side_effects=side_effects.record(),
    )
    description = describe_effect(task.name, test, changes=not profile.changes_nothing)
    fitted = profile.model_copy(update={"provenance": provenance, "description": description})
    return FinalLayerGroupsResult(fitted, settings, choices, dev, test, side_effects)


def _record(loaded: LoadedModel, examples: Sequence[Example], progress: Progress) -> LayerRecord:
    return record_layer(loaded, examples, loaded.anatomy.sizes.layers - 1, progress)


def _profile(
    choices: Sequence[GroupChoice],
    records: dict[str, LayerRecord],
    settings: FinalLayerSettings,
    model: ModelIdentity,
    name: str,
) -> Profile:
    """Return the profile of what was chosen, each with the intercept of all of its group's prompts."""
    layers: list[ConditionalFinalLayer] = []
    tensors = {}
    for choice in choices:
        if choice.chosen is None:
            continue
        candidate = choice.chosen.candidate
        if candidate.source is not None:
            intercept = intercepts_of(records[choice.group], settings.sources)[candidate.source]
            tensors[intercept_tensor(len(layers))] = intercept.numpy().astype(np.float32)
        layers.append(
            ConditionalFinalLayer(
                self_only_attention=candidate.self_only_attention,
                intercept_scale=candidate.intercept_scale,
                when=choice.condition,
            )
        )
    return Profile(
        name=name,
        description="",
        method="final-layer",
        model=model,
        final_layers=tuple(layers),
        when=Condition(part="last_prompt_token") if layers else None,
        tensors=tensors,
    )


def _searched(choices: Sequence[GroupChoice], settings: FinalLayerSettings) -> dict[str, JsonValue]:
    """Return the searched settings and the measurements of every candidate, for the provenance."""
    points: list[JsonValue] = [
        [
            choice.group,
            one.candidate.self_only_attention,
            one.candidate.intercept_scale,
            one.candidate.source,
            round(one.temperature, 4),
            round(one.change.nll.mean, 5),
            None if one.change.nll.half is None else round(one.change.nll.half, 5),
            round(one.change.accuracy.mean, 5),
            None if one.change.accuracy.half is None else round(one.change.accuracy.half, 5),
        ]
        for choice in choices
        for one in choice.measured
    ]
    return {
        "method": "final-layer",
        "per_group": True,
        "folds": FOLDS,
        "most_lost": settings.max_lost,
        "columns": [
            *("group", "own_attention", "lambda", "intercept", "temperature"),
            *("change of NLL", "interval", "change of accuracy", "interval"),
        ],
        "points": points,
    }
