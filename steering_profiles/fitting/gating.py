"""Predictions of a final-layer candidate, and those of the same candidate behind a gate or at fewer positions.

A gate selects, position by position, either the plain model's logits or the steered ones, by the plain model's top
probability. So the predictions behind any gate follow exactly from the plain and the ungated predictions, without
another forward pass. So do those of a candidate that applies at some positions only, since the final layer's output
affects only the logits at its own position. At the last token of the prompt alone answers of one token stay as they
are, and of other text only the first token of each window is predicted otherwise.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import JsonValue
from torch import Tensor

from steering_profiles.evaluation import Accuracy, ScoredAnswer
from steering_profiles.evaluation.prediction import TokenScores
from steering_profiles.evaluation.tempered import TemperedChange, facts_of, tempered_changes
from steering_profiles.final_layer_fields import Gate
from steering_profiles.tasks.task import Example

EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Probabilities at which a fitted gate can begin or end."""

TEMPERATURES = tuple(2 ** (power / 12) for power in range(-8, 9))
"""Temperatures that a search tries, 0.63..1.59 in steps of 6%, with 1 among them. The one of least NLL is at most 3%
away from one of them, which changes the NLL by a few ten-thousandths of a nat."""

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Score:
    """Accuracy and likelihood of the correct answers on a set of prompts."""

    accuracy: Accuracy
    nll: float
    """NLL of the correct answer, in nats, averaged over groups."""
    probability: float
    """Probability of the correct answer, averaged over groups."""
    temperature: float
    """The temperature with the smallest NLL on these prompts, of those that were tried."""
    tempered_nll: float
    """:attr:`nll` at that temperature."""

    def to_json(self) -> list[JsonValue]:
        """Return the score as plain data."""
        return [self.accuracy.to_json(), self.nll, self.probability, self.temperature, self.tempered_nll]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> "Score":
        """Create a score from the result of :meth:`to_json`."""
        return cls(Accuracy.from_json(data[0]), *data[1:])


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to a set of prompts, one entry per prompt."""

    groups: Sequence[str]
    facts: Sequence[Hashable]
    """What prompts about the same fact have in common, see :func:`.facts_of`."""
    correct: _Array
    """``[prompts]``."""
    log_probability: _Array
    """``[prompts, temperatures]``: log-probability of the correct answer at each temperature."""
    confidence: _Array
    """``[prompts]``: probability of the likeliest token at temperature 1."""
    temperatures: tuple[float, ...] = TEMPERATURES
    """Temperatures of :attr:`log_probability`, 1 among them."""

    @classmethod
    def of(cls, examples: Sequence[Example], answers: Mapping[float, Sequence[ScoredAnswer]]) -> "Answers":
        """Create arrays from the single answers to ``examples`` at each of several temperatures, 1 among them."""
        plain = answers[1.0]
        return cls(
            groups=[example.group for example in examples],
            facts=facts_of(examples),
            correct=np.array([answer.correct for answer in plain], dtype=bool),
            log_probability=np.array(
                [[answer.log_probability for answer in at_temperature] for at_temperature in answers.values()]
            ).T,
            confidence=np.array([answer.confidence for answer in plain]),
            temperatures=tuple(answers),
        )

    @cached_property
    def score(self) -> Score:
        """Score of these answers."""
        names = np.array(self.groups)
        of = {group: names == group for group in dict.fromkeys(self.groups)}
        nll = -np.mean([self.log_probability[some].mean(axis=0) for some in of.values()], axis=0)
        unchanged = self.temperatures.index(1.0)
        plain = self.log_probability[:, unchanged]
        return Score(
            Accuracy({group: (int(self.correct[some].sum()), int(some.sum())) for group, some in of.items()}),
            float(nll[unchanged]),
            float(np.mean([np.exp(plain[some]).mean() for some in of.values()])),
            self.temperatures[int(nll.argmin())],
            float(nll.min()),
        )

    def changes(self, plain: "Answers") -> dict[str, TemperedChange]:
        """Return the changes of each group from the ``plain`` model, where both have the temperature tuned for them."""
        nll = [-one.log_probability[:, one.temperatures.index(one.score.temperature)] for one in (plain, self)]
        correct = np.array([plain.correct, self.correct], dtype=float)
        return tempered_changes(self.groups, self.facts, np.array(nll), correct)

    def behind(self, gate: Gate, plain: "Answers") -> "Answers":
        """Return these answers where ``gate`` is open, and those of the ``plain`` model where it is closed."""
        return self.where((plain.confidence >= gate.low) & (plain.confidence <= gate.high), plain)

    def replaced(self, at: _Array, others: "Answers") -> "Answers":
        """Return these answers with ``others`` in the places ``at``, ``[others]``."""
        correct, log_probability, confidence = self.correct.copy(), self.log_probability.copy(), self.confidence.copy()
        correct[at], log_probability[at] = others.correct, others.log_probability
        confidence[at] = others.confidence
        return Answers(self.groups, self.facts, correct, log_probability, confidence, self.temperatures)

    def where(self, here: _Array, plain: "Answers") -> "Answers":
        """Return these answers where ``here`` (``[prompts]``) is true, else those of the ``plain`` model."""
        return Answers(
            self.groups,
            self.facts,
            np.where(here, self.correct, plain.correct),
            np.where(here[:, None], self.log_probability, plain.log_probability),
            np.where(here, self.confidence, plain.confidence),
            self.temperatures,
        )


@dataclass(frozen=True, eq=False)
class Places:
    """Where a condition holds: which of the predictions of :class:`CandidatePredictions` are made there."""

    dev: _Array
    """``[prompts]``."""
    fit_formats: Mapping[str, _Array]
    """``[prompts]`` by format."""
    texts: Mapping[str, Tensor]
    """``[tokens]`` by text."""


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

    def at_last_prompt_token(self, plain: "CandidatePredictions") -> "CandidatePredictions":
        """Return the predictions of the same candidate at the last token of the prompt alone."""
        texts = {name: _text_where(scores.is_first, scores, plain.texts[name]) for name, scores in self.texts.items()}
        return CandidatePredictions(self.dev, self.fit_formats, texts)

    def where(self, places: Places, plain: "CandidatePredictions") -> "CandidatePredictions":
        """Return these predictions at ``places``, and those of the ``plain`` model elsewhere."""
        return CandidatePredictions(
            self.dev.where(places.dev, plain.dev),
            {
                name: answers.where(places.fit_formats[name], plain.fit_formats[name])
                for name, answers in self.fit_formats.items()
            },
            {name: _text_where(places.texts[name], scores, plain.texts[name]) for name, scores in self.texts.items()},
        )

    def changes(self, plain: "CandidatePredictions") -> dict[str, dict[str, TemperedChange]]:
        """Return the changes from the ``plain`` model by prompt set, ``dev`` or a format, and by group."""
        formats = {name: answers.changes(plain.fit_formats[name]) for name, answers in self.fit_formats.items()}
        return {"dev": self.dev.changes(plain.dev), **formats}

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
    return _text_where((plain.confidence >= gate.low) & (plain.confidence <= gate.high), steered, plain)


def _text_where(here: Tensor, steered: TokenScores, plain: TokenScores) -> TokenScores:
    return TokenScores(
        steered.nll.where(here, plain.nll), steered.confidence.where(here, plain.confidence), steered.is_first
    )
