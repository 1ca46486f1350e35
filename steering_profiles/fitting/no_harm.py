"""No harm as a constraint of the stepwise search: groups that lose weigh more, and what makes one lose is not chosen.

Prompt formats are split in three. Fitting formats move the scales, with pressure on the groups that answer worse than
the plain model does (:mod:`.pressure`). *Choosing formats* move none, nor does dev: a step of the search is kept only
if no group of them loses more than a limit by it. Held-out formats are measured in the report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy
from steering_profiles.fitting.components import ScaleSet
from steering_profiles.fitting.stepwise import SearchStep, standing

_ROUNDING = 1e-9


@dataclass(frozen=True)
class GroupChange:
    """Change of the accuracy of one group of prompts in one format."""

    format: str
    group: str
    before: int
    """Right answers of the plain model."""
    after: int
    total: int

    @property
    def lost(self) -> float:
        """Percentage points of accuracy that are lost; negative if some are gained."""
        return 100 * (self.before - self.after) / self.total

    def __str__(self) -> str:
        before, after = (100 * correct / self.total for correct in (self.before, self.after))
        return f"{self.format} on {self.group}: {before:.0f}% to {after:.0f}%"


def group_changes(before: Mapping[str, Accuracy], after: Mapping[str, Accuracy]) -> tuple[GroupChange, ...]:
    """Return the change of every group of every format, the largest loss first."""
    changes = [
        GroupChange(name, group, correct, after[name].counts[group][0], total)
        for name, accuracy in before.items()
        for group, (correct, total) in accuracy.counts.items()
    ]
    return tuple(sorted(changes, key=lambda change: -change.lost))


@dataclass(frozen=True)
class Candidate:
    """A step of the search that may be chosen, and the condition under which its scales apply."""

    point: SearchStep
    """The step, measured under the condition."""
    condition: Condition | None = None
    beside: Sequence[ScaleSet] = ()
    """Sets of scales that were chosen before, and in place when the step was measured."""

    @property
    def sets(self) -> tuple[ScaleSet, ...]:
        """All that is in place."""
        return (*self.beside, ScaleSet(self.point.scales, self.condition)) if self.point.scales else (*self.beside,)

    def __str__(self) -> str:
        where = "" if self.condition is None else f" where {self.condition}"
        return f"step {self.point.step}{where}"


@dataclass(frozen=True)
class ChosenCandidate:
    """The best candidate within the limits."""

    candidate: Candidate
    path: Sequence[Candidate]
    """The steps that were measured under its condition."""
    changes: tuple[GroupChange, ...]
    """Those of the choosing formats, the largest loss first."""
    refused: tuple[str, ...]
    """The better candidates, each with the limit that it exceeds; the best first."""


def choose_candidate(
    paths: Sequence[Sequence[Candidate]],
    changes_of: Callable[[Candidate], tuple[GroupChange, ...]],
    max_nll_increase: float,
    max_lost: float,
) -> ChosenCandidate:
    """Return the best candidate with which no group loses more than ``max_lost`` percentage points.

    ``paths`` have the measured steps in order, under one condition each, and begin with the step without scales, which
    is always allowed. They are judged by their :func:`.standing`, and of equal ones that of the earlier path is better.
    ``changes_of`` is asked in this order, and only until a candidate is allowed.

    Raises:
        ValueError: no path has a step without scales, and no other candidate is allowed.
    """

    ranked = sorted(
        (
            (*standing([one.point for one in path], index), place, candidate)
            for place, path in enumerate(paths)
            for index, candidate in enumerate(path)
        ),
        key=lambda one: one[:3],
    )
    refused: list[str] = []
    for *_, place, candidate in ranked:
        point = candidate.point
        if point.step and point.nll_increase > max_nll_increase:
            refused.append(f"{candidate}: the NLL of other text increases by {100 * point.nll_increase:.2f}%")
            continue
        changes = changes_of(candidate)
        if not point.scales or not changes or changes[0].lost <= max_lost + _ROUNDING:
            return ChosenCandidate(candidate, paths[place], changes, tuple(refused))
        losing = sum(change.lost > max_lost + _ROUNDING for change in changes)
        more = f" and {losing - 1} more" if losing > 1 else ""
        refused.append(f"{candidate}: {changes[0]}{more}")
    raise ValueError("no path has a step without scales")


def changes_to_json(changes: Sequence[GroupChange]) -> list[JsonValue]:
    """Return the changes as JSON data: ``[format, group, before, after, total]``."""
    return [[one.format, one.group, one.before, one.after, one.total] for one in changes]
