"""The best of several draws, by the mean log-probability of their tokens."""

from collections.abc import Sequence
from dataclasses import replace

from steering_server.api.plan import Draws, Plan, PlannedSequence
from steering_server.generation.requests import Chunk


def best(plan: Plan, answers: Sequence[Chunk]) -> tuple[Plan, list[Chunk]]:
    """Return the draws of every prompt and arm that are returned, as a plan and its answers, the best draw first."""
    if plan.draws.all_are_returned:
        return plan, list(answers)
    kept: list[tuple[PlannedSequence, Chunk]] = []
    for start in range(0, len(answers), plan.draws.number):
        # A plan has the draws of one prompt and arm side by side.
        drawn = range(start, start + plan.draws.number)
        likeliest = sorted(drawn, key=lambda index: -_mean_logprob(answers[index]))[: plan.draws.returned]
        kept.extend((replace(plan.sequences[i], draw=rank), answers[i]) for rank, i in enumerate(likeliest))
    returned = replace(plan, draws=Draws(plan.draws.returned), sequences=tuple(sequence for sequence, _ in kept))
    return returned, [answer for _, answer in kept]


def _mean_logprob(answer: Chunk) -> float:
    return sum(token.logprob for token in answer.logprobs) / max(1, len(answer.logprobs))
