"""What a choice of final-layer settings looks at, with and without a gate.

A gate lets either the plain model's logits through or the steered ones, position by position, by the plain model's top
probability. So what a setting does behind any gate follows from what it does without one, exactly.
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
"""Where a fitted gate may begin and end."""

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Score:
    """How well some prompts are answered."""

    accuracy: Accuracy
    nll: float
    """Of the correct answer, in nats, averaged over groups."""
    probability: float
    """Of the correct answer, averaged over groups."""

    def to_json(self) -> list[JsonValue]:
        """Return it as plain data."""
        return [self.accuracy.to_json(), self.nll, self.probability]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> "Score":
        """Make it of what :meth:`to_json` returned."""
        return cls(Accuracy.from_json(data[0]), data[1], data[2])


@dataclass(frozen=True, eq=False)
class Answers:
    """How some prompts are answered: one entry for each, all ``[prompts]``."""

    groups: Sequence[str]
    correct: _Array
    log_probability: _Array
    confidence: _Array

    @classmethod
    def of(cls, answers: Sequence[ScoredAnswer]) -> "Answers":
        """Make it of single answers."""
        return cls(
            groups=[answer.group for answer in answers],
            correct=np.array([answer.correct for answer in answers], dtype=bool),
            log_probability=np.array([answer.log_probability for answer in answers]),
            confidence=np.array([answer.confidence for answer in answers]),
        )

    @cached_property
    def score(self) -> Score:
        """The figures that a choice rests on."""
        names = np.array(self.groups)
        of = {group: names == group for group in dict.fromkeys(self.groups)}
        return Score(
            Accuracy({group: (int(self.correct[some].sum()), int(some.sum())) for group, some in of.items()}),
            float(-np.mean([self.log_probability[some].mean() for some in of.values()])),
            float(np.mean([np.exp(self.log_probability[some]).mean() for some in of.values()])),
        )

    def behind(self, gate: Gate, plain: "Answers") -> "Answers":
        """Return the answers with these where ``gate`` is open, and with those of the ``plain`` model elsewhere."""
        is_open = _is_open(gate, plain.confidence)
        return Answers(
            self.groups,
            np.where(is_open, self.correct, plain.correct),
            np.where(is_open, self.log_probability, plain.log_probability),
            np.where(is_open, self.confidence, plain.confidence),
        )


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of a setting."""

    dev: Answers
    fit_formats: Mapping[str, Answers]
    texts: Mapping[str, TokenScores]

    def behind(self, gate: Gate, plain: "Evidence") -> "Evidence":
        """Return what the setting does behind ``gate``, the ``plain`` model being what shows elsewhere."""
        return Evidence(
            self.dev.behind(gate, plain.dev),
            {name: answers.behind(gate, plain.fit_formats[name]) for name, answers in self.fit_formats.items()},
            {name: _text_behind(gate, scores, plain.texts[name]) for name, scores in self.texts.items()},
        )

    def nll_increase(self, plain: "Evidence") -> float:
        """Return by how much the NLL of the text that suffers most rises, as a share of what it was."""
        return max(
            float(scores.nll.double().sum() / plain.texts[name].nll.double().sum()) - 1
            for name, scores in self.texts.items()
        )


def possible_gates() -> Iterator[Gate]:
    """Yield every band between two of :data:`EDGES`, but for that which is always open."""
    for low, high in combinations(EDGES, 2):
        if (low, high) != (EDGES[0], EDGES[-1]):
            yield Gate(low=low, high=high)


def _text_behind(gate: Gate, steered: TokenScores, plain: TokenScores) -> TokenScores:
    is_open = (plain.confidence >= gate.low) & (plain.confidence <= gate.high)
    return TokenScores(steered.nll.where(is_open, plain.nll), steered.confidence.where(is_open, plain.confidence))


def _is_open(gate: Gate, confidence: _Array) -> _Array:
    return (confidence >= gate.low) & (confidence <= gate.high)
