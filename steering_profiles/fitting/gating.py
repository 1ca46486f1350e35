"""Predictions of a final-layer candidate, and those of the same candidate behind a gate.

A gate selects, position by position, either the plain model's logits or the steered ones, by the plain model's top
probability. So the predictions behind any gate follow exactly from the plain and the ungated predictions, without
another forward pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import JsonValue

from steering_profiles.evaluation import Accuracy, ScoredAnswer
from steering_profiles.evaluation.prediction import TokenScores
from steering_profiles.schema import Gate

EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Probabilities at which a fitted gate can begin or end."""

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Score:
    """Accuracy and likelihood of the correct answers on a set of prompts."""

    accuracy: Accuracy
    nll: float
    """NLL of the correct answer, in nats, averaged over groups."""
    probability: float
    """Probability of the correct answer, averaged over groups."""

    def to_json(self) -> list[JsonValue]:
        """Return the score as plain data."""
        return [self.accuracy.to_json(), self.nll, self.probability]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> "Score":
        """Create a score from the result of :meth:`to_json`."""
        return cls(Accuracy.from_json(data[0]), data[1], data[2])


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to a set of prompts, one entry per prompt: every array is ``[prompts]``."""

    groups: Sequence[str]
    correct: _Array
    log_probability: _Array
    confidence: _Array

    @classmethod
    def of(cls, answers: Sequence[ScoredAnswer]) -> "Answers":
        """Create arrays from single answers."""
        return cls(
            groups=[answer.group for answer in answers],
            correct=np.array([answer.correct for answer in answers], dtype=bool),
            log_probability=np.array([answer.log_probability for answer in answers]),
            confidence=np.array([answer.confidence for answer in answers]),
        )

    @cached_property
    def score(self) -> Score:
        """Score of these answers."""
        names = np.array(self.groups)
        of = {group: names == group for group in dict.fromkeys(self.groups)}
        return Score(
            Accuracy({group: (int(self.correct[some].sum()), int(some.sum())) for group, some in of.items()}),
            float(-np.mean([self.log_probability[some].mean() for some in of.values()])),
            float(np.mean([np.exp(self.log_probability[some]).mean() for some in of.values()])),
        )

    def behind(self, gate: Gate, plain: "Answers") -> "Answers":
        """Return these answers where ``gate`` is open, and those of the ``plain`` model where it is closed."""
        is_open = (plain.confidence >= gate.low) & (plain.confidence <= gate.high)
        return Answers(
            self.groups,
            np.where(is_open, self.correct, plain.correct),
            np.where(is_open, self.log_probability, plain.log_probability),
            np.where(is_open, self.confidence, plain.confidence),
        )


@dataclass(frozen=True, eq=False)
class CandidatePredictions:
    """Predictions of a candidate: answers to prompts, and scores of the tokens of other text."""

    dev: Answers
    fit_formats: Mapping[str, Answers]
    texts: Mapping[str, TokenScores]

    def behind(self, gate: Gate, plain: "CandidatePredictions") -> "CandidatePredictions":
        """Return these predictions where ``gate`` is open, and those of the ``plain`` model where it is closed."""
        return CandidatePredictions(
            self.dev.behind(gate, plain.dev),
            {name: answers.behind(gate, plain.fit_formats[name]) for name, answers in self.fit_formats.items()},
            {name: _text_behind(gate, scores, plain.texts[name]) for name, scores in self.texts.items()},
        )

    def nll_increase(self, plain: "CandidatePredictions") -> float:
        """Return the largest increase of the NLL over the texts, as a share of the ``plain`` model's NLL."""
        return max(
            float(scores.nll.double().sum() / plain.texts[name].nll.double().sum()) - 1
            for name, scores in self.texts.items()
        )


def possible_gates() -> Iterator[Gate]:
    """Yield a gate for every pair of :data:`EDGES`, except the gate that is always open."""
    for low, high in combinations(EDGES, 2):
        if (low, high) != (EDGES[0], EDGES[-1]):
            yield Gate(low=low, high=high)


def _text_behind(gate: Gate, steered: TokenScores, plain: TokenScores) -> TokenScores:
    is_open = (plain.confidence >= gate.low) & (plain.confidence <= gate.high)
    return TokenScores(steered.nll.where(is_open, plain.nll), steered.confidence.where(is_open, plain.confidence))
