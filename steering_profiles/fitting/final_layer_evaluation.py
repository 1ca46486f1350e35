"""Measure candidates for the settings of the final layer on dev, on other prompt formats and on other text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from steering_profiles.conditions import Condition, ConditionTrace
from steering_profiles.evaluation import TemperedChange, TextPredictor, TokenPredictor, Window
from steering_profiles.final_layer_fields import Gate
from steering_profiles.fit_settings import FinalLayerSettings
from steering_profiles.fitting.final_layer_candidates import (
    FinalLayerCandidate,
    MeasuredCandidate,
    OtherMeasurements,
    is_allowed,
)
from steering_profiles.fitting.gating import TEMPERATURES, Answers, CandidatePredictions, Places, Score, possible_gates
from steering_profiles.steering import UNSTEERED, Steering
from steering_profiles.tasks.task import Example, Task
from steering_profiles.tokenization import Vocabulary


@dataclass
class CandidateEvaluator:
    """Measures candidates on a task's dev prompts and fitting formats, and on other text."""

    task: Task
    texts: Mapping[str, Sequence[Window]]
    """The fitting texts, by name."""
    predictor: TokenPredictor
    text_predictor: TextPredictor
    vocabulary: Vocabulary
    settings: FinalLayerSettings
    _places: dict[Condition, Places] = field(default_factory=dict, init=False)
    """Where each condition of the task holds."""

    def measure(self, candidate: FinalLayerCandidate, steering: Steering, plain: MeasuredCandidate | None) -> list[Any]:
        """Return the measurements of ``candidate`` as plain data, which :func:`measured_from_json` reads.

        It is measured at each of the positions of the settings and, with ``conditions``, there under each of the task's
        conditions. With ``gates``, the same candidate behind its best allowed gate follows each of them, if there is
        one. ``plain`` is the plain model, or None if ``candidate`` is the plain model itself.
        """
        if plain is None:
            return [_to_json(_measured(candidate, self._plain_predictions, self._plain_predictions))]
        conditions = (None, *self.task.conditions) if self.settings.conditions else (None,)
        at = [
            replace(candidate, positions=positions, condition=condition)
            for positions in self.settings.positions
            for condition in conditions
        ]
        dev = self._answers(self.task.dev, steering)
        if dev.score.tempered_nll > plain.dev.tempered_nll:
            return [_to_json(MeasuredCandidate(one, dev.score, None)) for one in at]
        predictions = self._predictions(dev, steering)
        return [_to_json(measured) for one in at for measured in self._at(one, predictions, plain)]

    def _at(
        self, candidate: FinalLayerCandidate, predictions: CandidatePredictions, plain: MeasuredCandidate
    ) -> list[MeasuredCandidate]:
        """Return the measurements of ``candidate`` at its positions, and of it behind its best allowed gate."""
        plain_predictions = self._plain_predictions
        if candidate.positions == "last":
            predictions = predictions.at_last_prompt_token(plain_predictions)
        if candidate.condition is not None:
            predictions = predictions.where(self._places_of(candidate.condition), plain_predictions)
        found = [_measured(candidate, predictions, plain_predictions)]
        if self.settings.gates:
            gated = (
                _measured(replace(candidate, gate=gate), predictions.behind(gate, plain_predictions), plain_predictions)
                for gate in possible_gates()
            )
            allowed = [one for one in gated if is_allowed(one, plain, self.settings)]
            # Of gates with equal NLL the narrowest, since it changes the fewest positions.
            found += sorted(allowed, key=lambda one: (round(one.dev.tempered_nll, 9), _gate_width(one.candidate)))[:1]
        return found

    @cached_property
    def _plain_predictions(self) -> CandidatePredictions:
        return self._predictions(self._answers(self.task.dev, UNSTEERED), UNSTEERED)

    def _answers(self, examples: Sequence[Example], steering: Steering) -> Answers:
        return Answers.of(examples, self.predictor.answers_at(examples, TEMPERATURES, steering))

    def _predictions(self, dev: Answers, steering: Steering) -> CandidatePredictions:
        return CandidatePredictions(
            dev=dev,
            fit_formats={name: self._answers(some, steering) for name, some in self.task.fit_formats.items()},
            texts={name: self.text_predictor.token_scores(some, steering) for name, some in self.texts.items()},
        )

    def _places_of(self, condition: Condition) -> Places:
        if condition not in self._places:
            self._places[condition] = Places(
                self._prompts_where(condition, self.task.dev),
                {name: self._prompts_where(condition, some) for name, some in self.task.fit_formats.items()},
                {name: self._tokens_where(condition, some) for name, some in self.texts.items()},
            )
        return self._places[condition]

    def _prompts_where(self, condition: Condition, examples: Sequence[Example]) -> "np.ndarray[Any, Any]":
        """Return whether ``condition`` holds at the end of each prompt, ``[prompts]``."""
        return np.array([self._held(condition, one.prompt, len(one.prompt), len(one.prompt))[0] for one in examples])

    def _tokens_where(self, condition: Condition, windows: Sequence[Window]) -> torch.Tensor:
        """Return whether ``condition`` holds where each predicted token of ``windows`` is predicted, ``[tokens]``."""
        held = [
            self._held(condition, window.tokens, window.given, window.given - 1 + len(window.predicted))
            for window in windows
        ]
        return torch.tensor([one for of_window in held for one in of_window])

    def _held(self, condition: Condition, tokens: Sequence[int], prompt_length: int, end: int) -> list[bool]:
        """Return whether ``condition`` holds at each position from the prompt's last to ``end``, exclusive."""
        trace = ConditionTrace((condition,), self.vocabulary.bytes_of, prompt_length)
        return [bool(held) for held in trace.held(tokens, prompt_length - 1, end)]


def measured_from_json(candidate: FinalLayerCandidate, data: Sequence[Any]) -> Iterator[MeasuredCandidate]:
    """Yield the measurements of ``candidate`` that :meth:`CandidateEvaluator.measure` returned as ``data``."""
    for one in data:
        other = one["other"]
        if other is not None:
            fit_formats = {name: Score.from_json(score) for name, score in other["fit_formats"].items()}
            changes = {
                name: {group: TemperedChange.from_json(change) for group, change in groups.items()}
                for name, groups in other["changes"].items()
            }
            other = OtherMeasurements(fit_formats, other["nll_increase"], changes)
        gate = None if one["gate"] is None else Gate(low=one["gate"][0], high=one["gate"][1])
        condition = None if one["condition"] is None else Condition.model_validate(one["condition"])
        at = replace(candidate, gate=gate, positions=one["positions"], condition=condition)
        yield MeasuredCandidate(at, Score.from_json(one["dev"]), other)


def _to_json(measured: MeasuredCandidate) -> dict[str, Any]:
    gate, condition, other = measured.candidate.gate, measured.candidate.condition, measured.other
    return {
        "gate": None if gate is None else [gate.low, gate.high],
        "positions": measured.candidate.positions,
        "condition": condition and condition.model_dump(mode="json", by_alias=True, exclude_none=True),
        "dev": measured.dev.to_json(),
        "other": other
        and {
            "fit_formats": {name: score.to_json() for name, score in other.fit_formats.items()},
            "nll_increase": other.nll_increase,
            "changes": {
                name: {group: asdict(change) for group, change in groups.items()}
                for name, groups in other.changes.items()
            },
        },
    }


def _measured(
    candidate: FinalLayerCandidate, predictions: CandidatePredictions, plain: CandidatePredictions
) -> MeasuredCandidate:
    fit_formats = {name: answers.score for name, answers in predictions.fit_formats.items()}
    changes = {} if predictions is plain else predictions.changes(plain)
    return MeasuredCandidate(
        candidate, predictions.dev.score, OtherMeasurements(fit_formats, predictions.nll_increase(plain), changes)
    )


def _gate_width(candidate: FinalLayerCandidate) -> float:
    return 1.0 if candidate.gate is None else candidate.gate.high - candidate.gate.low
