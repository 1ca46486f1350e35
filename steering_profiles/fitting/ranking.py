"""Rank components by how reliably they promote the right answer: RASteer (arXiv:2507.00322), algorithms 1 and 2."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

PROMOTION_THRESHOLD = 0.5
"""``tau``: a component promotes a token whose logit is at least this share of its largest."""
ACCURACY_THRESHOLD = 0.7
"""Accuracy from which a component counts as right on a sub-task; the paper's text has 0.7, its released code 0.9."""

Metric = Literal["f1", "recall", "precision"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class Reliability:
    """How reliable each of a set of components is; every tensor has one entry per component, averaged over groups."""

    accuracy: Tensor
    """``[components, groups]``: algorithm 1."""
    precision: Tensor
    recall: Tensor
    f1: Tensor

    @property
    def generalisability(self) -> Tensor:
        """On how many sub-tasks each component is right: ``[components]``, integers."""
        return (self.accuracy >= ACCURACY_THRESHOLD).sum(dim=-1)


def measure_reliability(candidates: Tensor, maximum: Tensor, answers: Sequence[int], seed: int = 0) -> Reliability:
    """Compute accuracy, precision, recall and F1 of components from their projected logits.

    ``candidates`` is ``[components, prompts, groups]``, ``maximum`` ``[components, prompts]``, and ``answers`` has for
    each prompt the index of its group, whose candidate is the right one.

    A component's precision and recall on a sub-task are taken over a balanced set: the sub-task's own prompts, and
    as many drawn evenly from the others. On one of those a promotion of *this sub-task's* answer is a false
    positive. That is the paper's text; the authors' released code asks instead whether the other prompt's own answer
    is promoted.
    """
    answer_of = torch.tensor(answers)
    groups = candidates.shape[-1]
    correct = candidates.gather(-1, _expand(answer_of, candidates)).squeeze(-1) >= candidates.amax(dim=-1)
    promotes = candidates >= PROMOTION_THRESHOLD * maximum.unsqueeze(-1)
    accuracy, precision, recall, f1 = [], [], [], []
    for group in range(groups):
        own = (answer_of == group).nonzero().squeeze(-1)
        others = torch.tensor(_drawn_evenly(answers, group, len(own), seed), dtype=torch.long)
        true = promotes[:, own, group].sum(dim=-1).double()
        false = promotes[:, others, group].sum(dim=-1).double()
        accuracy.append(correct[:, own].double().mean(dim=-1))
        precision.append((true / (true + false)).nan_to_num(0.0))
        recall.append(true / len(own))
        f1.append((2 * true / (true + false + len(own))).nan_to_num(0.0))
    return Reliability(
        accuracy=torch.stack(accuracy, dim=-1),
        precision=torch.stack(precision).mean(dim=0),
        recall=torch.stack(recall).mean(dim=0),
        f1=torch.stack(f1).mean(dim=0),
    )


def rank(reliability: Reliability, metric: Metric = "f1") -> list[int]:
    """Return component indices, best first: by generalisability, then by ``metric``, then by index."""
    generalisability = reliability.generalisability.tolist()
    values: list[float] = getattr(reliability, metric).tolist()
    return sorted(range(len(values)), key=lambda i: (-generalisability[i], -values[i], i))


def _expand(answer_of: Tensor, candidates: Tensor) -> Tensor:
    return answer_of.view(1, -1, 1).expand(candidates.shape[0], -1, 1)


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
