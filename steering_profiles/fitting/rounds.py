"""Rounds of the search without harm: sets of scales under different conditions, found one after the other.

By default there is one round: it searches at every position and under each condition, and keeps the best allowed step
of all. In turn, each condition has a round of its own, the narrowest first. What a round chooses stays in place, and
its condition is taken: later rounds move scales only where no taken condition holds, so that they leave the earlier
sets as they are. They still see each other, as later positions attend to earlier ones; harm is measured for all of them
together. Text where no condition holds stays as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from steering_profiles.conditions import Condition
from steering_profiles.fitting.components import ScaleSet
from steering_profiles.fitting.no_harm import Candidate, ChosenCandidate
from steering_profiles.fitting.stepwise import SearchStep

Search = Callable[[Condition | None, Sequence[ScaleSet]], Sequence[SearchStep]]
"""The measured steps under a condition, beside sets that are in place."""

Choose = Callable[[Sequence[Sequence[Candidate]]], ChosenCandidate]
"""The best allowed step of the searches of one round."""


@dataclass(frozen=True)
class Round:
    """One round of the search: under which conditions it searched, and what it chose."""

    tried: Sequence[Condition | None]
    """Where the scales of each search applied; None: at every position."""
    path: Sequence[SearchStep]
    """The measured steps under the condition of the chosen one."""
    chosen: SearchStep
    """A step without scales, if no other was better and allowed."""
    condition: Condition | None = None
    beside: Sequence[ScaleSet] = ()
    """The sets that earlier rounds had chosen."""
    refused: tuple[str, ...] = ()
    """What was better on the validation set and not allowed, each with the limit that it exceeds."""

    def __str__(self) -> str:
        where = "at every position" if self.condition is None else f"where {self.condition}"
        if self.chosen.scales:
            errors = f"{self.path[0].errors} to {self.chosen.errors} errors of {self.chosen.accuracy.total}"
            return f"chosen: step {self.chosen.step} {where}, {errors}"
        tried = " or ".join("at every position" if one is None else f"where {one}" for one in self.tried)
        return f"nothing that was better {tried} was allowed" if self.refused else f"nothing was better {tried}"

    def to_json(self) -> dict[str, JsonValue]:
        """Return what was chosen as JSON data, for the provenance of a profile."""
        facts: dict[str, JsonValue] = {
            "step": self.chosen.step,
            "components": len(self.chosen.scales),
            "disturbance": self.chosen.total_change,
            "drift": round(self.chosen.nll_increase, 5),
        }
        return facts if self.condition is None else facts | {"when": self.condition.model_dump(mode="json")}


def search_at_once(
    conditions: Sequence[Condition], search: Search, choose: Choose
) -> tuple[list[Round], ChosenCandidate]:
    """Search at every position and under each condition, and choose one step.

    Returns:
        The only round, and its candidate.
    """
    round_, chosen = _searched([None, *conditions], (), search, choose)
    return [round_], chosen


def search_in_turn(
    conditions: Sequence[Condition], search: Search, choose: Choose
) -> tuple[list[Round], ChosenCandidate]:
    """Search under one condition after the other, the last first, where none of those chosen before holds.

    There must be at least one condition.

    Returns:
        The rounds, and the candidate of the last one, which has all chosen sets.
    """
    taken: list[Condition] = []
    beside: tuple[ScaleSet, ...] = ()
    rounds: list[Round] = []
    for condition in reversed(conditions):
        round_, chosen = _searched([_outside(condition, taken)], beside, search, choose)
        rounds.append(round_)
        beside = chosen.candidate.sets
        if round_.chosen.scales:
            taken.append(condition)
    return rounds, chosen


def _searched(
    regions: Sequence[Condition | None], beside: Sequence[ScaleSet], search: Search, choose: Choose
) -> tuple[Round, ChosenCandidate]:
    """Search in each of ``regions``, and choose one step."""
    paths = [
        [Candidate(point, where if point.scales else None, beside) for point in search(where, beside)]
        for where in regions
    ]
    chosen = choose(paths)
    best = chosen.candidate
    path = [candidate.point for candidate in chosen.path]
    return Round(regions, path, best.point, best.condition, beside, chosen.refused), chosen


def _outside(condition: Condition, taken: Sequence[Condition]) -> Condition:
    """Return where ``condition`` holds and none of ``taken`` does."""
    if not taken:
        return condition
    others = Condition(not_=taken[0] if len(taken) == 1 else Condition(any_=tuple(taken)))
    return Condition(all_=(condition, others))
