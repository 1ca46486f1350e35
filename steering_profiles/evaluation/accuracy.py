"""Accuracy under greedy decoding: an answer is correct if it is the likeliest of all tokens.

Of a whole answer every token must be the likeliest, given the prompt and those before it, and the likeliest token after
the last must not go on with it (:mod:`.continuing`). One pass over prompt and answer decides that: as long as all of
its tokens are the likeliest, they are what greedy decoding generates.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from pydantic import JsonValue
from torch import Tensor

from steering_profiles.errors import TaskError
from steering_profiles.evaluation.replay import FinalLayerReplay
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.steering import UNSTEERED, Steering, SteeringHandle, TextReader, attach, steered_logits
from steering_profiles.tasks.batches import equal_length_batches
from steering_profiles.tasks.task import Example
from steering_profiles.tokenization import Continuations

Z_95 = 1.959964
"""Standard deviations within which 95% of the normal distribution lies."""


@dataclass(frozen=True)
class Accuracy:
    """Number of correct answers and of prompts per group: ``{group: (correct, total)}``."""

    counts: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, examples: Sequence[Example], predicted: Sequence[int]) -> "Accuracy":
        """Count the ``examples`` whose answer is the token at the same index of ``predicted``."""
        right = [token == example.answer for example, token in zip(examples, predicted, strict=True)]
        return cls.of_correct(examples, right)

    @classmethod
    def of_correct(cls, examples: Sequence[Example], right: Sequence[bool]) -> "Accuracy":
        """Count the ``examples`` that were answered correctly, as the same index of ``right`` says."""
        counts = {example.group: (0, 0) for example in examples}
        for example, is_right in zip(examples, right, strict=True):
            correct, total = counts[example.group]
            counts[example.group] = (correct + is_right, total + 1)
        return cls(counts)

    @property
    def correct(self) -> int:
        """Number of correct answers over all groups."""
        return sum(correct for correct, _ in self.counts.values())

    @property
    def total(self) -> int:
        """Number of prompts over all groups."""
        return sum(total for _, total in self.counts.values())

    @property
    def percent(self) -> dict[str, float]:
        """Percentage of correct answers per group, rounded to one decimal."""
        return {group: round(100 * correct / total, 1) for group, (correct, total) in self.counts.items()}

    def to_json(self) -> dict[str, JsonValue]:
        """Return the counts as JSON data."""
        return {group: [correct, total] for group, (correct, total) in self.counts.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Accuracy":
        """Make an accuracy from the result of :meth:`to_json`."""
        return cls({group: (correct, total) for group, (correct, total) in data.items()})

    def interval(self, group: str | None = None) -> tuple[float, float]:
        """Return the 95% confidence interval of the percentage of ``group``, or of all groups pooled if it is None.

        This is Wilson's score interval, which is valid near 0% and 100% too. Without prompts it is 0..100.

        Raises:
            KeyError: ``group`` does not exist.
        """
        correct, total = (self.correct, self.total) if group is None else self.counts[group]
        if not total:
            return 0.0, 100.0
        share = correct / total
        centre = (share + Z_95**2 / (2 * total)) / (1 + Z_95**2 / total)
        half = Z_95 / (1 + Z_95**2 / total) * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
        low = 0.0 if correct == 0 else 100 * (centre - half)  # exact, where rounding errors would show
        high = 100.0 if correct == total else 100 * (centre + half)
        return low, high

    def __add__(self, other: "Accuracy") -> "Accuracy":
        """Return the pooled counts of two measurements."""
        counts = dict(self.counts)
        for group, (correct, total) in other.counts.items():
            before = counts.get(group, (0, 0))
            counts[group] = (before[0] + correct, before[1] + total)
        return Accuracy(counts)


@dataclass(frozen=True)
class ScoredAnswer:
    """Result of the model on one prompt."""

    group: str
    correct: bool
    """Whether the answer is the likeliest of all tokens."""
    log_probability: float
    """Log-probability of the correct answer, in nats."""
    confidence: float
    """Probability of the likeliest token, correct or not."""


def least_change(before: Accuracy, after: Accuracy) -> float:
    """Return the smallest change of a group's accuracy in percentage points: that of the group which loses most."""
    both = ((before.counts[group], after.counts[group]) for group in before.counts if group in after.counts)
    return min((100 * (now - earlier) / total for (earlier, total), (now, _) in both if total), default=0.0)


class TokenPredictor:
    """Predictor of the token after a prompt, or of a whole answer, with or without steering.

    It is a context manager that removes its hooks from the model on exit. With ``replay``, repeated passes over the
    same prompts run the final layer only, if nothing below it is steered.
    """

    def __init__(self, loaded: LoadedModel, replay: FinalLayerReplay | None = None) -> None:
        self._loaded = loaded
        self._replay = replay
        self._handle: SteeringHandle = attach(loaded)
        self._reader = TextReader(loaded.tokenizer)
        self._continuations = Continuations(loaded.tokenizer)

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
            for index, token in zip(indices, logits[:, -1].argmax(dim=-1).tolist(), strict=True):
                predicted[index] = token
            progress.advance(len(indices))
        return predicted

    def accuracy(
        self, examples: Sequence[Example], steering: Steering = UNSTEERED, progress: Progress | None = None
    ) -> Accuracy:
        """Return the accuracy on ``examples``."""
        return Accuracy.of_correct(examples, self.correct(examples, steering, progress))

    def correct(
        self, examples: Sequence[Example], steering: Steering = UNSTEERED, progress: Progress | None = None
    ) -> list[bool]:
        """Return whether each of ``examples`` is answered correctly, as a whole where a whole answer is asked for."""
        progress = progress or Silent()
        correct = [False] * len(examples)
        for indices, logits in self._batches(examples, steering, whole=True):
            for index, likeliest in zip(indices, logits.argmax(dim=-1).tolist(), strict=True):
                example = examples[index]
                correct[index] = self._is_right(example, likeliest[-example.scored_positions :])
            progress.advance(len(indices))
        return correct

    def _is_right(self, example: Example, likeliest: Sequence[int]) -> bool:
        """Return whether the ``likeliest`` tokens at the scored positions are the answer and, if it is whole, its end.

        The last of them is what follows a whole answer.
        """
        whole = example.whole_answer
        if tuple(likeliest[: len(whole)]) != whole:
            return False
        return not example.ends_with or not self._continuations.goes_on(example.ends_with, likeliest[-1])

    def answers(
        self, examples: Sequence[Example], steering: Steering = UNSTEERED, progress: Progress | None = None
    ) -> list[ScoredAnswer]:
        """Return the scored answer to each of ``examples``."""
        return self.answers_at(examples, (1.0,), steering, progress)[1.0]

    def answers_at(
        self,
        examples: Sequence[Example],
        temperatures: Sequence[float],
        steering: Steering = UNSTEERED,
        progress: Progress | None = None,
    ) -> dict[float, list[ScoredAnswer]]:
        """Return the scored answers to ``examples`` at each of ``temperatures``, from one pass.

        The logits are divided by the temperature. Probabilities are over the whole vocabulary, in at least float32.

        Raises:
            TaskError: a whole answer is asked for, of which only the first token has such a probability here.
        """
        if any(example.ends_with for example in examples):
            raise TaskError("probabilities of answers are those of the next token; whole answers have none here")
        progress = progress or Silent()
        found: dict[float, dict[int, ScoredAnswer]] = {temperature: {} for temperature in temperatures}
        for indices, logits in self._batches(examples, steering):
            batch = [examples[index] for index in indices]
            precise = logits[:, -1].to(torch.promote_types(logits.dtype, torch.float32))
            likeliest = precise.argmax(dim=-1).tolist()  # the same at every temperature
            below = precise - precise.amax(dim=-1, keepdim=True)
            for temperature, scored in found.items():
                scored.update(zip(indices, _scored(below / temperature, batch, likeliest), strict=True))
            progress.advance(len(indices))
        return {t: [scored[index] for index in range(len(examples))] for t, scored in found.items()}

    @torch.inference_mode()
    def _batches(
        self, examples: Sequence[Example], steering: Steering, *, whole: bool = False
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield indices of examples, and their logits, ``[examples, positions, vocab]``.

        The position is that after the prompt or, with ``whole``, the last positions are those that score the answer.
        """

        def tokens_of(example: Example) -> tuple[int, ...]:
            return example.scored_tokens if whole else example.prompt

        for indices in equal_length_batches(examples, tokens_of):
            batch = [examples[index] for index in indices]
            tokens = torch.tensor([tokens_of(example) for example in batch], device=self._loaded.input_device)
            texts = [(tokens_of(example), len(example.prompt)) for example in batch]
            held = self._reader.held(steering, texts, tokens.shape[1])
            positions = max(example.scored_positions for example in batch) if whole else 1
            forward = partial(self._forward, tokens, steering, positions)
            yield indices, steered_logits(self._handle, [steering] * len(indices), forward, held)

    def _forward(self, tokens: Tensor, steering: Steering, positions: int) -> Tensor:
        with nullcontext() if self._replay is None else self._replay.over(tokens, steering):
            logits: Tensor = self._loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=positions).logits
        return logits


def _scored(logits: Tensor, examples: Sequence[Example], likeliest: Sequence[int]) -> list[ScoredAnswer]:
    """Score the ``[examples, vocab]`` logits, of which the largest is 0 and whose ``likeliest`` tokens are given.

    The logits are overwritten.
    """
    answers = torch.tensor([example.answer for example in examples], device=logits.device).unsqueeze(-1)
    of_answers = logits.gather(-1, answers).squeeze(-1)
    total = logits.exp_().sum(dim=-1).log()
    log_probability, confidence = (of_answers - total).tolist(), (-total).exp().tolist()
    scored = zip(examples, likeliest, log_probability, confidence, strict=True)
    return [ScoredAnswer(example.group, token == example.answer, log_p, sure) for example, token, log_p, sure in scored]
