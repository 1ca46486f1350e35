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
    """How reliable each of a set of components is."""

    accuracy: Tensor
    """``[components, groups]``: algorithm 1. Of a task without sub-tasks it has no columns."""
    precision: Tensor
    """``[components]``, as the others averaged over groups: algorithm 2. NaN for a task without sub-tasks."""
    recall: Tensor
    f1: Tensor

    def generalisability(self, threshold: float = ACCURACY_THRESHOLD) -> Tensor:
        """On how many sub-tasks each component is right: ``[components]``, integers."""
        return (self.accuracy >= threshold).sum(dim=-1)


@dataclass(frozen=True)
class ComponentRanking:
    """Components, the most reliable first, and what they are ranked by."""

    components: tuple[Component, ...]
    reliability: Reliability
    """In the same order."""
    groups: tuple[str, ...]
    """The sub-tasks, in the order of the columns of accuracy; empty for a task without."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return all of it as plain data."""
        found = self.reliability
        return {
            "groups": list(self.groups),
            "components": [[c.kind, c.layer, c.index] for c in self.components],
            "accuracy": found.accuracy.tolist(),
            **{name: getattr(found, name).tolist() for name in METRICS},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ComponentRanking":
        """Make it of what :meth:`to_json` returned."""
        count = len(data["components"])
        return cls(
            components=tuple(Component(*component) for component in data["components"]),
            reliability=Reliability(
                torch.tensor(data["accuracy"], dtype=torch.double).view(count, -1),
                **{name: torch.tensor(data[name], dtype=torch.double) for name in METRICS},
            ),
            groups=tuple(data["groups"]),
        )


def measure_reliability(projection: Projection, asked: AnswerTokens, seed: int = 0) -> Reliability:
    """Compute accuracy, precision, recall and F1 of components from their projected logits.

    A component's precision and recall on a sub-task are taken over a balanced set: the sub-task's own prompts, and
    as many drawn evenly from the others. On one of those a promotion of *this sub-task's* answer is a false
    positive. That is the paper's text; the authors' released code asks instead whether the other prompt's own answer
    is promoted. Of a task without sub-tasks only recall is defined: how often the prompt's answer is promoted.
    """
    count = projection.logits.shape[0]
    if not asked.groups:
        undefined = torch.full((count,), torch.nan, dtype=torch.double)
        recall = projection.promotes[:, :, 0].double().mean(dim=-1)
        return Reliability(torch.empty(count, 0), undefined, recall, undefined)
    others = projection.logits.masked_fill(~asked.choices, -torch.inf).amax(dim=-1)
    correct = projection.logits[:, :, 0] >= others
    accuracy, precision, recalls, f1 = [], [], [], []
    group_of = asked.group.tolist()
    for group in range(len(asked.groups)):
        promotes = projection.promotes.gather(-1, asked.columns[:, group].expand(count, -1).unsqueeze(-1)).squeeze(-1)
        own = (asked.group == group).nonzero().squeeze(-1)
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
    asked: AnswerTokens,
    *,
    metric: Metric = "f1",
    threshold: float = ACCURACY_THRESHOLD,
    seed: int = 0,
) -> ComponentRanking:
    """Rank the components of ``projection``: by generalisability, then by ``metric``, then by where they are.

    A task without sub-tasks is ranked by recall alone, whatever the metric.
    """
    reliability = measure_reliability(projection, asked, seed)
    generalisability = reliability.generalisability(threshold).tolist()
    values: list[float] = getattr(reliability, metric if asked.groups else "recall").tolist()
    components = projection.components
    order = sorted(range(len(values)), key=lambda i: (-generalisability[i], -values[i], components[i]))
    return ComponentRanking(
        components=tuple(components[i] for i in order),
        reliability=Reliability(
            reliability.accuracy[order], reliability.precision[order], reliability.recall[order], reliability.f1[order]
        ),
        groups=asked.groups,
    )


def _drawn_evenly(answers: Sequence[int], group: int, count: int, seed: int) -> list[int]:
    """Draw ``count`` prompts of other groups, as evenly over them as the count allows, without replacement."""
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
