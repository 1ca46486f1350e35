"""Comparison of a request's arms: the first token that differs, and each arm's tokens scored under the other."""

from collections.abc import Sequence
from itertools import combinations

from steering_server.api.plan import Plan, score
from steering_server.api.schemas.responses import ArmPair, Comparison
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the first position at which two sequences of tokens differ, or None if they are the same.

    If one is a prefix of the other, this is the position after its end.
    """
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return None if len(one) == len(other) else min(len(one), len(other))


async def compare_arms(plan: Plan, answers: Sequence[Chunk], backend: Backend) -> Comparison | None:
    """Compare every pair of arms, for every prompt and every n; return None if there is one arm only."""
    if len(plan.arms.arms) < 2:
        return None
    pairs = _pairs(plan)
    scored = await _cross_scores(plan, answers, pairs, backend) if plan.sampling.logprobs is not None else None
    compared = []
    for i, j in pairs:
        a, b = plan.sequences[i].arm.label, plan.sequences[j].arm.label
        logprobs = None
        if scored is not None:
            own = {index: [token.logprob for token in answers[index].logprobs] for index in (i, j)}
            logprobs = {a: {a: own[i], b: scored[i, j]}, b: {a: scored[j, i], b: own[j]}}
        compared.append(
            ArmPair(
                arms=(a, b),
                choices=(i, j),
                first_difference=first_difference(answers[i].tokens, answers[j].tokens),
                logprobs=logprobs,
            )
        )
    return Comparison(pairs=tuple(compared))


def _pairs(plan: Plan) -> list[tuple[int, int]]:
    """Return the index pairs of choices that differ in nothing but their arm."""
    alike: dict[tuple[int, int], list[int]] = {}
    for index, sequence in enumerate(plan.sequences):
        alike.setdefault((id(sequence.prompt), sequence.draw), []).append(index)
    return [pair for indices in alike.values() for pair in combinations(indices, 2)]


async def _cross_scores(
    plan: Plan, answers: Sequence[Chunk], pairs: Sequence[tuple[int, int]], backend: Backend
) -> dict[tuple[int, int], list[float]]:
    """Return, for each pair of choices ``(i, j)``, the log-probabilities of i's tokens under j's arm."""
    wanted = [ordered for i, j in pairs for ordered in ((i, j), (j, i))]
    nonempty = [(i, j) for i, j in wanted if answers[i].tokens]
    scored = await score(
        backend,
        [(plan.sequences[j].arm, plan.sequences[i].prompt.tokens, answers[i].tokens) for i, j in nonempty],
        at_once=len(plan.sequences),
        client=plan.client,
    )
    none: dict[tuple[int, int], list[float]] = {ordered: [] for ordered in wanted}
    return none | dict(zip(nonempty, scored, strict=True))
