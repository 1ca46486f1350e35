"""Settings of the final layer for one group of prompts alone, chosen by cross-validation.

Each candidate is measured on all of the group's train and dev prompts. These are divided into folds by answer, and the
intercept that is used on a fold is that of the other folds, so that no answer is predicted with an intercept that has
seen it. What is compared is the NLL of the correct answer where the plain model and the candidate each have the
temperature that is best for them on these prompts, so that a candidate that does what a temperature does gains nothing.

A candidate is *allowed* if its NLL is lower by more than the 95% interval of its change, over facts, and its accuracy
not lower by more than ``max_lost`` percentage points. Of the allowed candidates, the one with the smallest NLL is
chosen; of equal ones, that with the smallest total change. Without one, the group is left as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from steering_profiles.conditions import Condition
from steering_profiles.errors import FitError
from steering_profiles.evaluation import TemperedChange, TokenPredictor
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer
from steering_profiles.fit_settings import FinalLayerSettings, Source
from steering_profiles.fitting.checkpoint import FitCheckpoint
from steering_profiles.fitting.decomposition import LayerRecord, decompose
from steering_profiles.fitting.final_layer_candidates import PLAIN, FinalLayerCandidate, make_candidates
from steering_profiles.fitting.gating import Answers
from steering_profiles.progress import Progress
from steering_profiles.schema import ModelIdentity, Profile
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.tasks.task import Example

FOLDS = 4
"""Number of folds; fewer if a group has fewer answers."""

TEMPERATURES = tuple(2 ** (power / 12) for power in range(-16, 9))
"""Temperatures that are tried, 0.40..1.59 in steps of 6%: that of one group alone can be far from that of all."""


@dataclass(frozen=True)
class GroupCandidate:
    """A candidate and its change from the plain model on one group."""

    candidate: FinalLayerCandidate
    temperature: float
    """The temperature that is best for it on the group's prompts."""
    change: TemperedChange

    def allowed(self, settings: FinalLayerSettings) -> bool:
        """Return whether the rule of this module allows it."""
        return self.change.nll.high < 0 and 100 * self.change.accuracy.mean >= -settings.max_lost - 1e-9


@dataclass(frozen=True)
class GroupChoice:
    """The candidates of one group, and the one that was chosen."""

    group: str
    condition: Condition
    """Holds at the end of the group's prompts."""
    prompts: int
    folds: int
    temperature: float
    """The temperature that is best for the plain model on the group's prompts."""
    measured: Sequence[GroupCandidate]
    """Of the most to the least gain."""
    chosen: GroupCandidate | None
    """None if no candidate is allowed: the group is left as it is."""


def folds_of(examples: Sequence[Example], most: int = FOLDS) -> list[int]:
    """Return the fold of each example: those with the same answer in the same fold, and the folds of similar size.

    Raises:
        FitError: all examples have the same answer, so that no fold would have others.
    """
    counts: dict[int, int] = {}
    for example in examples:
        counts[example.answer] = counts.get(example.answer, 0) + 1
    if len(counts) < 2:
        raise FitError("all prompts have the same answer; cross-validation needs at least two answers")
    sizes = [0] * min(most, len(counts))
    fold_of: dict[int, int] = {}
    for answer in sorted(counts, key=lambda answer: (-counts[answer], answer)):
        fold_of[answer] = sizes.index(min(sizes))
        sizes[fold_of[answer]] += counts[answer]
    return [fold_of[example.answer] for example in examples]


def intercepts_of(record: LayerRecord, sources: Sequence[Source]) -> dict[Source, Tensor]:
    """Return the intercept of each source from the prompts of ``record``, each ``[hidden_size]``.

    Raises:
        FitError: the prompts do not determine the regression.
    """
    found: dict[Source, Tensor] = {"mean": record.mlp.mean(dim=0)}
    if "regression" in sources:
        found["regression"] = decompose(record).intercept
    return found


@dataclass
class GroupSearch:
    """Measures and chooses the settings of one group after the other."""

    predictor: TokenPredictor
    model: ModelIdentity
    settings: FinalLayerSettings
    checkpoint: FitCheckpoint

    @property
    def candidates(self) -> list[FinalLayerCandidate]:
        """All candidates but the plain model."""
        return [one for one in make_candidates(self.settings) if one != PLAIN]

    def choose(
        self, group: str, condition: Condition, examples: Sequence[Example], record: LayerRecord, progress: Progress
    ) -> GroupChoice:
        """Choose the settings of ``group`` on ``examples``, of whose last positions ``record`` is.

        Raises:
            FitError: the examples of all folds but one do not determine an intercept, or all have the same answer.
        """
        try:
            folds = np.array(folds_of(examples))
            count = int(folds.max()) + 1
            intercepts = [intercepts_of(_part(record, folds != fold), self.settings.sources) for fold in range(count)]
        except FitError as exc:
            raise FitError(f"cannot choose settings for {group}: {exc}") from exc
        plain = self._answers(examples, UNSTEERED)
        measured = []
        for candidate in self.candidates:
            measure = partial(self._measure, candidate, examples, folds, intercepts, plain)
            measured.append(_from_json(candidate, self.checkpoint.recall(f"{group}: {candidate}", measure)))
            progress.advance()
        measured.sort(key=lambda one: (round(one.change.nll.mean, 9), one.candidate.total_change))
        chosen = next((one for one in measured if one.allowed(self.settings)), None)
        return GroupChoice(group, condition, len(examples), count, plain.score.temperature, measured, chosen)

    def _measure(
        self,
        candidate: FinalLayerCandidate,
        examples: Sequence[Example],
        folds: "np.ndarray[Any, Any]",
        intercepts: Sequence[Mapping[Source, Tensor]],
        plain: Answers,
    ) -> dict[str, Any]:
        """Return the measurements of ``candidate`` as plain data, which :func:`_from_json` reads."""
        if candidate.source is None:
            answers = self._answers(examples, self._steering(candidate, None))
        else:
            answers = plain
            for fold, of_others in enumerate(intercepts):
                where = np.flatnonzero(folds == fold)
                steering = self._steering(candidate, of_others[candidate.source])
                some = self._answers([examples[at] for at in where.tolist()], steering)
                answers = answers.replaced(where, some)
        (change,) = answers.changes(plain).values()
        return {"temperature": answers.score.temperature, "change": asdict(change)}

    def _answers(self, examples: Sequence[Example], steering: Steering) -> Answers:
        return Answers.of(examples, self.predictor.answers_at(examples, TEMPERATURES, steering))

    def _steering(self, candidate: FinalLayerCandidate, intercept: Tensor | None) -> Steering:
        """Return the candidate at every position; that of the prediction is the last one."""
        tensors = {} if intercept is None else {INTERCEPT_TENSOR: intercept.numpy().astype(np.float32)}
        layer = FinalLayer(self_only_attention=candidate.self_only_attention, intercept_scale=candidate.intercept_scale)
        profile = Profile(
            name="candidate",
            description="",
            method="final-layer",
            model=self.model,
            final_layer=layer,
            tensors=tensors,
        )
        return Steering((ProfileAtStrength(profile),))


def _part(record: LayerRecord, where: "np.ndarray[Any, Any]") -> LayerRecord:
    indices = np.flatnonzero(where)
    return LayerRecord(record.heads[indices], record.residual_stream[indices], record.mlp[indices])


def _from_json(candidate: FinalLayerCandidate, data: Mapping[str, Any]) -> GroupCandidate:
    return GroupCandidate(candidate, data["temperature"], TemperedChange.from_json(data["change"]))
