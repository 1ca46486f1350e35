"""Which grader grades which item, and the lines that none can grade."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steering_ab.datasets.dataset import Dataset, Fault
from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.choosing import LikeliestChoice
from steering_ab.graders.grader import Grader, NamedGrader
from steering_ab.graders.judge import JudgeModel
from steering_ab.graders.registry import default_grader, named_grader

MIXED = "correct"
"""Name of a grading whose items have different graders."""


@dataclass(frozen=True)
class Grading:
    """One quantity that is compared: every item has its grader."""

    name: str
    by_item: Mapping[str, NamedGrader]
    """Grader of each item, by the item's id; items that it cannot grade are left out."""

    @property
    def yes_no(self) -> bool:
        """Whether every grade is 0 or 1."""
        return all(named.yes_no for named in self.by_item.values())

    @property
    def pairwise(self) -> bool:
        """Whether pairs of answers are graded, not answers."""
        return not any(isinstance(named.grader, Grader) for named in self.by_item.values())

    def scores_choices(self, item: Item) -> bool:
        """Whether the log-probabilities of the item's choices are needed."""
        named = self.by_item.get(item.id)
        return named is not None and isinstance(named.grader, LikeliestChoice)


def plan_grading(
    dataset: Dataset, names: Sequence[str], judge: JudgeModel | None = None
) -> tuple[Dataset, tuple[Grading, ...]]:
    """Return the gradings by the graders ``names``, and the data set without the lines that none of them can grade.

    The first grader gives way to an item's own ``grader``. Without names every item is graded by its own, or by what
    it has: see :func:`~steering_ab.graders.registry.default_grader`.

    Raises:
        GraderError: there is no such grader, one is named twice, or yes or no would be averaged with scores.
        EvaluationError: a grader runs programs, and the sandbox cannot do so here.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise GraderError(f"grader {twice!r} is named twice")
    made = {name: named_grader(name, judge) for name in names}
    plans: list[dict[str, NamedGrader]] = [{} for _ in names or (None,)]
    faults = []
    for item in dataset.items:
        reasons = []
        for position, plan in enumerate(plans):
            try:
                named = _chosen(item, names[position] if names else None, position, made, judge)
                if isinstance(named.grader, Grader):
                    named.grader.require(item)
                plan[item.id] = named
            except GraderError as exc:
                reasons.append(str(exc))
        if len(reasons) == len(plans):
            faults.append(Fault(item.line, "; ".join(dict.fromkeys(reasons))))
    usable = dataset.without(faults)
    gradings = tuple(_grading(plan, names[position] if names else None) for position, plan in enumerate(plans) if plan)
    return usable, gradings


def _chosen(
    item: Item, name: str | None, position: int, made: dict[str, NamedGrader], judge: JudgeModel | None
) -> NamedGrader:
    chosen = (item.grader if position == 0 else None) or name or default_grader(item)
    if chosen not in made:
        made[chosen] = named_grader(chosen, judge)
    return made[chosen]


def _grading(plan: Mapping[str, NamedGrader], name: str | None) -> Grading:
    kinds = {named.name: named for named in plan.values()}
    yes_no = [kind for kind, named in kinds.items() if named.yes_no]
    others = [kind for kind in kinds if kind not in yes_no]
    if others and len(kinds) > 1:
        raise GraderError(
            f"items are graded by {', '.join(kinds)}, whose grades cannot be averaged; use graders of yes or no, or "
            "one grader for all items"
        )
    return Grading(name if name is not None and name in kinds and len(kinds) == 1 else _joint(kinds), plan)


def _joint(kinds: Mapping[str, NamedGrader]) -> str:
    return next(iter(kinds)) if len(kinds) == 1 else MIXED
