"""Accuracy on next-token prompts: greedy decoding, so correct means that the answer is the likeliest of all tokens."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from pydantic import JsonValue
from torch import Tensor

from steering_profiles.evaluation.replay import FinalLayerReplay
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.steering import UNSTEERED, Steering, SteeringHandle, attach, steered_logits
from steering_profiles.tasks.batches import equal_length_batches
from steering_profiles.tasks.task import Example

Z_95 = 1.959964
"""Standard deviations within which 95% of the normal distribution lies."""


@dataclass(frozen=True)
class Accuracy:
    """Correct answers per group: ``{group: (correct, total)}``."""

    counts: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, examples: Sequence[Example], predicted: Sequence[int]) -> "Accuracy":
        """Count which of ``examples`` are answered correct by the tokens ``predicted`` for them."""
        counts = {example.group: (0, 0) for example in examples}
        for example, token in zip(examples, predicted, strict=True):
            correct, total = counts[example.group]
            counts[example.group] = (correct + (token == example.answer), total + 1)
        return cls(counts)

    @property
    def correct(self) -> int:
        """Correct answers over all groups."""
        return sum(correct for correct, _ in self.counts.values())

    @property
    def total(self) -> int:
        """Prompts over all groups."""
        return sum(total for _, total in self.counts.values())

    @property
    def percent(self) -> dict[str, float]:
        """Percentage of correct answers per group, to one decimal."""
        return {group: round(100 * correct / total, 1) for group, (correct, total) in self.counts.items()}

    def to_json(self) -> dict[str, JsonValue]:
        """Return the counts as plain data."""
        return {group: [correct, total] for group, (correct, total) in self.counts.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Accuracy":
        """Make it of what :meth:`to_json` returned."""
        return cls({group: (correct, total) for group, (correct, total) in data.items()})

    def interval(self, group: str | None = None) -> tuple[float, float]:
        """Return the 95% confidence interval of a group's percentage, or without a group that of all together.

        Wilson's score interval, which holds near 0% and 100% too; 0..100 where there are no prompts.

        Raises:
            KeyError: there is no such group.
        """
        correct, total = (self.correct, self.total) if group is None else self.counts[group]
        if not total:
            return 0.0, 100.0
        share = correct / total
        centre = (share + Z_95**2 / (2 * total)) / (1 + Z_95**2 / total)
        half = Z_95 / (1 + Z_95**2 / total) * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
        low = 0.0 if correct == 0 else 100 * (centre - half)  # where rounding would miss them by a hair
        high = 100.0 if correct == total else 100 * (centre + half)
        return low, high

    def __add__(self, other: "Accuracy") -> "Accuracy":
        """Pool the prompts of two measurements."""
        counts = dict(self.counts)
        for group, (correct, total) in other.counts.items():
            before = counts.get(group, (0, 0))
            counts[group] = (before[0] + correct, before[1] + total)
        return Accuracy(counts)


@dataclass(frozen=True)
class ScoredAnswer:
    """How one prompt was answered."""

    group: str
    correct: bool
    """Whether the answer is the likeliest of all tokens."""
    log_probability: float
    """Of the correct answer, in nats."""
    confidence: float
    """Probability of the likeliest token, correct or not."""


class TokenPredictor:
    """Predicts the token after a prompt, steered or not. A context manager: on leaving it the model is plain again.

    With ``replay`` a pass over prompts that it has seen costs no more than the final layer, where no more is steered.
    """

    def __init__(self, loaded: LoadedModel, replay: FinalLayerReplay | None = None) -> None:
        self._loaded = loaded
        self._replay = replay
        self._handle: SteeringHandle = attach(loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def predict(
        self, examples: Sequence[Example], steering: Steering = UNSTEERED, progress: Progress | None = None
    ) -> list[int]:
        """Return the likeliest next token of each example's prompt."""
        progress = progress or Silent()
        predicted = [0] * len(examples)
        for indices, logits in self._batches(examples, steering):
            for index, token in zip(indices, logits.argmax(dim=-1).tolist(), strict=True):
                predicted[index] = token
            progress.advance(len(indices))
        return predicted

    def accuracy(
        self, examples: Sequence[Example], steering: Steering = UNSTEERED, progress: Progress | None = None
    ) -> Accuracy:
        """Measure how many of ``examples`` are answered correct."""
        return Accuracy.of(examples, self.predict(examples, steering, progress))

    def answers(
        self, examples: Sequence[Example], steering: Steering = UNSTEERED, progress: Progress | None = None
    ) -> list[ScoredAnswer]:
        """Return how each of ``examples`` is answered."""
        return self.answers_at(examples, (1.0,), steering, progress)[1.0]

    def answers_at(
        self,
        examples: Sequence[Example],
        temperatures: Sequence[float],
        steering: Steering = UNSTEERED,
        progress: Progress | None = None,
    ) -> dict[float, list[ScoredAnswer]]:
        """Return how ``examples`` are answered with the logits divided by each of ``temperatures``, in one pass.

        Probabilities are those over the whole vocabulary, in float32 at least.
        """
        progress = progress or Silent()
        found: dict[float, dict[int, ScoredAnswer]] = {temperature: {} for temperature in temperatures}
        for indices, logits in self._batches(examples, steering):
            batch = [examples[index] for index in indices]
            precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
            likeliest = precise.argmax(dim=-1).tolist()  # once: no temperature changes it
            for temperature, answered in found.items():
                answered.update(zip(indices, _answered(precise / temperature, batch, likeliest), strict=True))
            progress.advance(len(indices))
        return {t: [answered[index] for index in range(len(examples))] for t, answered in found.items()}

    @torch.inference_mode()
    def _batches(self, examples: Sequence[Example], steering: Steering) -> Iterator[tuple[list[int], Tensor]]:
        for indices in equal_length_batches(examples):
            tokens = torch.tensor([examples[index].prompt for index in indices], device=self._loaded.input_device)
            logits = steered_logits(self._handle, [steering] * len(indices), partial(self._forward, tokens, steering))
            yield indices, logits[:, -1]

    def _forward(self, tokens: Tensor, steering: Steering) -> Tensor:
        with nullcontext() if self._replay is None else self._replay.over(tokens, steering):
            logits: Tensor = self._loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits
        return logits


def _answered(logits: Tensor, examples: Sequence[Example], likeliest: Sequence[int]) -> list[ScoredAnswer]:
    """Judge the ``[examples, vocab]`` logits, of which the ``likeliest`` tokens are known."""
    answers = torch.tensor([example.answer for example in examples], device=logits.device).unsqueeze(-1)
    total = logits.logsumexp(dim=-1)
    log_probability = (logits.gather(-1, answers).squeeze(-1) - total).tolist()
    confidence = (logits.amax(dim=-1) - total).exp().tolist()
    judged = zip(examples, likeliest, log_probability, confidence, strict=True)
    return [ScoredAnswer(example.group, token == example.answer, log_p, sure) for example, token, log_p, sure in judged]
