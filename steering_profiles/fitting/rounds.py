"""Rounds of the search without harm: sets of scales under different conditions, found one after the other.

A round searches under each condition that is left, and where all that is left of the text is. What it chooses stays in
place, and its condition is taken: later rounds move scales only where no taken condition holds, so that they leave the
earlier sets as they are. They still see each other, as later positions attend to earlier ones; harm is measured for all
of them together.
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
    ended: str = ""
    """Why there was no further round; empty if there was one."""

    def __str__(self) -> str:
        searches = "1 search" if len(self.tried) == 1 else f"{len(self.tried)} searches"
        if self.chosen.scales:
            where = "at every position" if self.condition is None else f"where {self.condition}"
            errors = f"{self.path[0].errors} to {self.chosen.errors} errors of {self.chosen.accuracy.total}"
            found = f"step {self.chosen.step} {where}, {errors}"
        else:
            found = "nothing"
        return f"{searches}; chosen: {found}" + (f"; the last round, because {self.ended}" if self.ended else "")

    def to_json(self) -> dict[str, JsonValue]:
        """Return what was chosen as JSON data, for the provenance of a profile."""
        facts: dict[str, JsonValue] = {
            "step": self.chosen.step,
            "components": len(self.chosen.scales),
            "disturbance": self.chosen.total_change,
            "drift": round(self.chosen.nll_increase, 5),
        }
        return facts if self.condition is None else facts | {"when": self.condition.model_dump(mode="json")}


def search_rounds(
    conditions: Sequence[Condition], search: Search, choose: Choose, most: int
) -> tuple[list[Round], ChosenCandidate]:
    """Search in rounds, until one of them chooses nothing, no position is left, or there were ``most``.

    Returns:
        The rounds, and the candidate of the last one, which has all chosen sets.
    """
    left: list[Condition | None] = [None, *conditions]
    taken: list[Condition] = []
    beside: tuple[ScaleSet, ...] = ()
    rounds: list[Round] = []
    while True:
        regions = [_outside(condition, taken) for condition in left]
        paths = [
            [Candidate(point, where if point.scales else None, beside) for point in search(where, beside)]
            for where in regions
        ]
        chosen = choose(paths)
        best = chosen.candidate
        if best.point.scales and best.condition is not None:
            condition = left.pop(regions.index(best.condition))
        else:
            condition = None
        ended = ""
        if not best.point.scales:
            ended = "nothing that was better was allowed" if chosen.refused else "nothing was better"
        elif condition is None:
            ended = "its scales apply wherever those of no other round do"
        elif len(rounds) + 1 == most:
            ended = f"no more than {most} were asked for"
        if condition is not None:
            taken.append(condition)
        path = [candidate.point for candidate in chosen.path]
        rounds.append(Round(regions, path, best.point, best.condition, beside, chosen.refused, ended))
        beside = best.sets
        if ended:
            return rounds, chosen


def _outside(condition: Condition | None, taken: Sequence[Condition]) -> Condition | None:
    """Return where ``condition`` holds and none of ``taken`` does."""
    if not taken:
        return condition
    others = Condition(not_=taken[0] if len(taken) == 1 else Condition(any_=tuple(taken)))
    return others if condition is None else Condition(all_=(condition, others))
