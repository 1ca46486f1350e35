"""Knowledge rather than confidence: the model without and with a profile, both at a temperature tuned on dev.

A profile that only sharpens (or flattens) every distribution changes the NLL as a temperature does. Where both sides
have the temperature that suits them, what is left of a difference is what the profile knows better or worse.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from steering_profiles.evaluation.accuracy import Z_95, ScoredAnswer
from steering_profiles.tasks.task import Example

_FEWEST_FACTS = 2
"""Fewest facts with which an interval can be estimated."""


@dataclass(frozen=True)
class PairedChange:
    """Mean change of a figure on the same prompts, and half the width of its 95% interval."""

    mean: float
    half: float | None
    """None for fewer than two facts, which allow no interval."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return -math.inf if self.half is None else self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return math.inf if self.half is None else self.mean + self.half


@dataclass(frozen=True)
class TemperedChange:
    """Changes by a profile on one set of prompts, where both sides have a tuned temperature."""

    prompts: int
    nll_before: float
    """Mean NLL of the correct answer without the profile, in nats."""
    nll: PairedChange
    accuracy_before: float
    """Share of correct answers without the profile, 0..1. No temperature changes it."""
    accuracy: PairedChange

    @property
    def is_worse(self) -> bool:
        """Whether NLL or accuracy is worse with the profile by more than its interval."""
        return self.nll.low > 0 or self.accuracy.high < 0

    @property
    def is_better(self) -> bool:
        """Whether both NLL and accuracy are better with the profile, by however little."""
        return self.nll.mean < 0 < self.accuracy.mean

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TemperedChange":
        """Make a change from plain data: its fields."""
        figures = {**data, "nll": PairedChange(**data["nll"]), "accuracy": PairedChange(**data["accuracy"])}
        return cls(**figures)


@dataclass(frozen=True)
class TemperedComparison:
    """A profile compared with the unsteered model, each at its own temperature tuned on the same dev prompts."""

    temperature: float
    """Divisor of the logits with the profile."""
    pooled: TemperedChange
    """Over all prompts."""
    groups: dict[str, TemperedChange]

    def to_json(self) -> dict[str, JsonValue]:
        """Return all figures as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TemperedComparison":
        """Make a comparison from the result of :meth:`to_json`."""
        groups = {group: TemperedChange.from_json(one) for group, one in data["groups"].items()}
        return cls(data["temperature"], TemperedChange.from_json(data["pooled"]), groups)


def compare_tempered(
    examples: Sequence[Example], before: Sequence[ScoredAnswer], after: Sequence[ScoredAnswer], temperature: float
) -> TemperedComparison:
    """Compare the answers to ``examples`` without and with a profile, each at its tuned temperature.

    ``temperature`` is that of the answers with the profile.
    """
    clusters = facts_of(examples)
    likely, correct = (
        np.array([[getattr(answer, name) for answer in answers] for answers in (before, after)], dtype=float)
        for name in ("log_probability", "correct")
    )
    return TemperedComparison(
        temperature,
        _change(-likely, correct, clusters, range(len(examples))),
        tempered_changes([example.group for example in examples], clusters, -likely, correct),
    )


def tempered_changes(
    groups: Sequence[str],
    facts: Sequence[Hashable],
    nll: npt.NDArray[np.float64],
    correct: npt.NDArray[np.float64],
) -> dict[str, TemperedChange]:
    """Return the changes of each group, of ``nll`` and ``correct``: ``[before and after, prompts]``."""
    where: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        where.setdefault(group, []).append(index)
    return {group: _change(nll, correct, facts, some) for group, some in where.items()}


def facts_of(examples: Sequence[Example]) -> list[Hashable]:
    """Return what each prompt shares with those about the same fact: its topic, or its own index if that is unknown."""
    return [
        index if example.topic is None else (example.group, example.prompt[slice(*example.topic)])
        for index, example in enumerate(examples)
    ]


def paired_change(changes: npt.NDArray[np.float64], clusters: Sequence[Hashable]) -> PairedChange:
    """Return the mean of ``changes``, ``[prompts]``, with its 95% interval.

    Prompts in the same cluster, which ask for the same fact in other words, are not independent: the interval is that
    of a mean of clusters (cluster-robust standard error, normal approximation, corrected for few clusters).
    """
    mean = float(changes.mean())
    sums: dict[Hashable, float] = defaultdict(float)
    for cluster, change in zip(clusters, changes.tolist(), strict=True):
        sums[cluster] += change - mean
    count = len(sums)
    if count < _FEWEST_FACTS:
        return PairedChange(mean, None)
    variance = sum(one * one for one in sums.values()) * count / (count - 1)
    return PairedChange(mean, Z_95 * variance**0.5 / len(changes))


def _change(
    nll: npt.NDArray[np.float64],
    correct: npt.NDArray[np.float64],
    clusters: Sequence[Hashable],
    where: Sequence[int],
) -> TemperedChange:
    """Return the changes on the prompts ``where`` of ``[before and after, prompts]``."""
    some, of = list(where), [clusters[at] for at in where]
    return TemperedChange(
        prompts=len(some),
        nll_before=float(nll[0, some].mean()),
        nll=paired_change(nll[1, some] - nll[0, some], of),
        accuracy_before=float(correct[0, some].mean()),
        accuracy=paired_change(correct[1, some] - correct[0, some], of),
    )
