"""Accuracy on next-token prompts: greedy decoding, so right means that the answer is the likeliest of all tokens."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from pydantic import JsonValue
from torch import Tensor

from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.steering import UNSTEERED, Steering, SteeringHandle, attach, steered_logits
from steering_profiles.tasks.task import Example

BATCH_SIZE = 64
_Z = 1.959964  # of the normal distribution, 95% lies within as many standard deviations


@dataclass(frozen=True)
class Accuracy:
    """Right answers per group: ``{group: (right, asked)}``."""

    counts: dict[str, tuple[int, int]]

    @property
    def right(self) -> int:
        """Right answers over all groups."""
        return sum(right for right, _ in self.counts.values())

    @property
    def asked(self) -> int:
        """Prompts over all groups."""
        return sum(asked for _, asked in self.counts.values())

    @property
    def percent(self) -> dict[str, float]:
        """Percentage of right answers per group, to one decimal."""
        return {group: round(100 * right / asked, 1) for group, (right, asked) in self.counts.items()}

    def to_json(self) -> dict[str, JsonValue]:
        """Return the counts as plain data."""
        return {group: [right, asked] for group, (right, asked) in self.counts.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Accuracy":
        """Make it of what :meth:`to_json` returned."""
        return cls({group: (right, asked) for group, (right, asked) in data.items()})

    def interval(self, group: str | None = None) -> tuple[float, float]:
        """Return the 95% confidence interval of a group's percentage, or without a group that of all together.

        Wilson's score interval, which holds near 0% and 100% too; 0..100 where nothing was asked.

        Raises:
            KeyError: there is no such group.
        """
        right, asked = (self.right, self.asked) if group is None else self.counts[group]
        if not asked:
            return 0.0, 100.0
        share = right / asked
        centre = (share + _Z**2 / (2 * asked)) / (1 + _Z**2 / asked)
        half = _Z / (1 + _Z**2 / asked) * math.sqrt(share * (1 - share) / asked + _Z**2 / (4 * asked**2))
        low = 0.0 if right == 0 else 100 * (centre - half)  # where rounding would miss them by a hair
        high = 100.0 if right == asked else 100 * (centre + half)
        return low, high

    def __add__(self, other: "Accuracy") -> "Accuracy":
        """Pool the prompts of two measurements."""
        counts = dict(self.counts)
        for group, (right, asked) in other.counts.items():
            before = counts.get(group, (0, 0))
            counts[group] = (before[0] + right, before[1] + asked)
        return Accuracy(counts)


class TokenPredictor:
    """Predicts the token after a prompt, steered or not. A context manager: on leaving it the model is plain again."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
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
        """Measure how many of ``examples`` are answered right."""
        counts = {example.group: (0, 0) for example in examples}
        for example, token in zip(examples, self.predict(examples, steering, progress), strict=True):
            right, asked = counts[example.group]
            counts[example.group] = (right + (token == example.answer), asked + 1)
        return Accuracy(counts)

    @torch.inference_mode()
    def _batches(self, examples: Sequence[Example], steering: Steering) -> Iterator[tuple[list[int], Tensor]]:
        for indices in equal_length_batches(examples):
            tokens = torch.tensor([examples[index].prompt for index in indices], device=self._loaded.input_device)
            yield (
                indices,
                steered_logits(self._handle, [steering] * len(indices), partial(self._forward, tokens))[:, -1],
            )

    def _forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self._loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits
        return logits


def equal_length_batches(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Yield indices of prompts of the same length, at most ``BATCH_SIZE`` at a time, so that nothing need be padded."""
    by_length: dict[int, list[int]] = {}
    for index, example in enumerate(examples):
        by_length.setdefault(len(example.prompt), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), BATCH_SIZE):
            yield indices[start : start + BATCH_SIZE]
