"""Rank components by how reliably they promote the right answer: RASteer (arXiv:2507.00322), algorithms 1 and 2."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from steering_profiles.fit_settings import ACCURACY_THRESHOLD, METRICS, Metric
from steering_profiles.fitting.answer_tokens import AnswerTokens
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.projection import Projection


@dataclass(frozen=True)
class Reliability:
    """Reliability of a set of components."""

    accuracy: Tensor
    """``[components, groups]``: algorithm 1. Without columns for a task without sub-tasks."""
    precision: Tensor
    """``[components]``, averaged over groups like recall and F1: algorithm 2. NaN for a task without sub-tasks."""
    recall: Tensor
    f1: Tensor

    def generalisability(self, threshold: float = ACCURACY_THRESHOLD) -> Tensor:
        """Return the number of sub-tasks with an accuracy of at least ``threshold``: ``[components]``, integers."""
        return (self.accuracy >= threshold).sum(dim=-1)


@dataclass(frozen=True)
class ComponentRanking:
    """Components, most reliable first, with their reliability."""

    components: tuple[Component, ...]
    reliability: Reliability
    """In the order of ``components``."""
    groups: tuple[str, ...]
    """The sub-tasks, in the order of the columns of accuracy; empty for a task without sub-tasks."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return the ranking as plain data."""
        found = self.reliability
        return {
            "groups": list(self.groups),
            "components": [[c.kind, c.layer, c.index] for c in self.components],
            "accuracy": found.accuracy.tolist(),
            **{name: getattr(found, name).tolist() for name in METRICS},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ComponentRanking":
        """Create a ranking from the result of :meth:`to_json`."""
        count = len(data["components"])
        return cls(
            components=tuple(Component(*component) for component in data["components"]),
            reliability=Reliability(
                torch.tensor(data["accuracy"], dtype=torch.double).view(count, -1),
                **{name: torch.tensor(data[name], dtype=torch.double) for name in METRICS},
            ),
            groups=tuple(data["groups"]),
        )


def measure_reliability(projection: Projection, answer_tokens: AnswerTokens, seed: int = 0) -> Reliability:
    """Compute accuracy, precision, recall and F1 of components from their projected logits.

    Precision and recall on a sub-task are computed over a balanced set: the sub-task's own prompts, and equally many
    drawn evenly from the other sub-tasks. On a prompt of another sub-task, a promotion of *this sub-task's* answer is a
    false positive. This follows the paper's text; the authors' released code tests instead whether that prompt's own
    answer is promoted. For a task without sub-tasks only recall is defined: how often the prompt's answer is promoted.
    """
    count = projection.logits.shape[0]
    if not answer_tokens.groups:
        undefined = torch.full((count,), torch.nan, dtype=torch.double)
        recall = projection.promotes[:, :, 0].double().mean(dim=-1)
        return Reliability(torch.empty(count, 0), undefined, recall, undefined)
    others = projection.logits.masked_fill(~answer_tokens.choices, -torch.inf).amax(dim=-1)
    correct = projection.logits[:, :, 0] >= others
    accuracy, precision, recalls, f1 = [], [], [], []
    group_of = answer_tokens.group.tolist()
    for group in range(len(answer_tokens.groups)):
        promotes = projection.promotes.gather(
            -1, answer_tokens.columns[:, group].expand(count, -1).unsqueeze(-1)
        ).squeeze(-1)
        own = (answer_tokens.group == group).nonzero().squeeze(-1)
        negatives = torch.tensor(_drawn_evenly(group_of, group, len(own), seed), dtype=torch.long)
        true = promotes[:, own].sum(dim=-1).double()
        false = promotes[:, negatives].sum(dim=-1).double()
        accuracy.append(correct[:, own].double().mean(dim=-1))
        precision.append((true / (true + false)).nan_to_num(0.0))
        recalls.append(true / len(own))
        f1.append((2 * true / (true + false + len(own))).nan_to_num(0.0))
    return Reliability(
        accuracy=torch.stack(accuracy, dim=-1),
        precision=torch.stack(precision).mean(dim=0),
        recall=torch.stack(recalls).mean(dim=0),
        f1=torch.stack(f1).mean(dim=0),
    )


def rank(
    projection: Projection,
    answer_tokens: AnswerTokens,
    *,
    metric: Metric = "f1",
    threshold: float = ACCURACY_THRESHOLD,
    seed: int = 0,
) -> ComponentRanking:
    """Rank the components of ``projection`` by generalisability, then by ``metric``, then by position in the model.

    For a task without sub-tasks the components are ranked by recall, whatever the metric.
    """
    reliability = measure_reliability(projection, answer_tokens, seed)
    generalisability = reliability.generalisability(threshold).tolist()
    values: list[float] = getattr(reliability, metric if answer_tokens.groups else "recall").tolist()
    components = projection.components
    order = sorted(range(len(values)), key=lambda i: (-generalisability[i], -values[i], components[i]))
    return ComponentRanking(
        components=tuple(components[i] for i in order),
        reliability=Reliability(
            reliability.accuracy[order], reliability.precision[order], reliability.recall[order], reliability.f1[order]
        ),
        groups=answer_tokens.groups,
    )


def _drawn_evenly(answers: Sequence[int], group: int, count: int, seed: int) -> list[int]:
    """Draw ``count`` prompts of other groups without replacement, as evenly over these groups as possible."""
    others = sorted(set(answers) - {group})
    draw = random.Random(f"negatives {seed} {group}")
    pools = {other: [i for i, answer in enumerate(answers) if answer == other] for other in others}
    for pool in pools.values():
        draw.shuffle(pool)
    drawn: list[int] = []
    while len(drawn) < count and any(pools.values()):
        for pool in pools.values():
            if pool and len(drawn) < count:
                drawn.append(pool.pop())
    return drawn
