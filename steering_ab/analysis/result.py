"""The result of a comparison: what the report is made of."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

from steering_ab.analysis.arms import ArmEffort, ArmGrade, arm_effort, arm_grade, item_means
from steering_ab.analysis.comparison import PairComparison, compare, corrected
from steering_ab.datasets.dataset import Dataset, Fault
from steering_ab.datasets.item import Item
from steering_ab.errors import RequirementError
from steering_ab.graders.grader import Answer
from steering_ab.requirements import Checked, Requirement, parse_requirement, require_known
from steering_ab.runs.grading import Graded, GradingFailure
from steering_ab.runs.settings import RunSettings

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Flip:
    """An item on which two arms were graded differently."""

    item: Item
    reference: str
    arm: str
    difference: float


@dataclass(frozen=True)
class Result:
    """The answers of all arms, their grades, and what they show."""

    settings: RunSettings
    about: Mapping[str, Any]
    """What else is needed to run it again: command, versions, data set."""
    dataset: Dataset
    graded: tuple[Graded, ...]
    answer: Callable[[Item, int, str], Answer | None]
    """Returns the answer of an arm to an item in a repeat, if there is one."""
    refused: tuple[Fault, ...] = ()
    """Lines that the server refuses."""
    unanswered: tuple[Fault, ...] = ()
    """Lines whose request failed."""
    requirements: tuple[Requirement, ...] = ()
    detect: float = 0.05
    """Difference of rates for which the number of items is planned."""
    folder: "Path | None" = None

    @property
    def arms(self) -> tuple[str, ...]:
        """Labels of the arms, the reference first."""
        return tuple(self.settings.arms)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All pairs of arms: the reference, which was named first, and the other one."""
        return tuple(combinations(self.arms, 2))

    @cached_property
    def comparisons(self) -> tuple[PairComparison, ...]:
        """The comparison of every pair by every grader on all items, corrected by Holm's method for each grader."""
        return tuple(
            each
            for graded in self.graded
            for each in corrected(
                [self._compared(graded, arm, reference, None) for reference, arm in self._usable(graded)]
            )
        )

    @cached_property
    def tagged(self) -> tuple[PairComparison, ...]:
        """The comparisons on the items of each tag, corrected for each grader over all tags and pairs."""
        return tuple(
            each
            for graded in self.graded
            for each in corrected(
                tuple(
                    self._compared(graded, arm, reference, tag)
                    for tag in self.dataset.tags
                    for reference, arm in self._usable(graded, tag)
                )
            )
        )

    @cached_property
    def rates(self) -> tuple[ArmGrade, ...]:
        """Mean grade of every arm by every grader that grades answers, on all items and then by tag."""
        return tuple(self._rates())

    @cached_property
    def efforts(self) -> tuple[ArmEffort, ...]:
        """Lengths and times of every arm's answers."""
        return tuple(
            arm_effort(arm, [answer for item in self.dataset.items for answer in self._answers(item, arm)])
            for arm in self.arms
        )

    @property
    def failures(self) -> tuple[GradingFailure, ...]:
        """Answers that a grader failed on."""
        return tuple(failure for graded in self.graded for failure in graded.failures)

    @cached_property
    def checked(self) -> tuple[Checked, ...]:
        """The requirements, and whether they hold."""
        return tuple(self.check(requirement) for requirement in self.requirements)

    def compare(
        self, arm: str, reference: str, *, tag: str | None = None, grader: str | None = None
    ) -> PairComparison | None:
        """Return how ``arm`` differs from ``reference``, without correction; None if no item was graded.

        Raises:
            RequirementError: there is no such arm, tag or grader.
        """
        graded = self._named(grader)
        for given, known, kind in (
            (arm, self.arms, "arm"),
            (reference, self.arms, "arm"),
            (tag, self.dataset.tags, "tag"),
        ):
            if given is not None and given not in known:
                raise RequirementError(f"there is no {kind} {given!r}; there are: {', '.join(known) or 'none'}")
        if not self._differences(graded, arm, reference, tag):
            return None
        return self._compared(graded, arm, reference, tag)

    def check(self, requirement: Requirement | str) -> Checked:
        """Return whether a requirement holds.

        Raises:
            RequirementError: it cannot be read, or names what was not compared.
        """
        if isinstance(requirement, str):
            requirement = parse_requirement(requirement)
        require_known([requirement], self.arms, self.dataset.tags, [graded.grading.name for graded in self.graded])
        where = "" if requirement.tag is None else f" with the tag {requirement.tag}"
        if requirement.reference is None:
            rate = self._rate(self._named(requirement.grader), requirement.arm, requirement.tag)
            interval, shown = (rate.interval, f"{requirement.arm} has {rate.mean:.3f}") if rate else (None, "")
            items = rate.items if rate else 0
        else:
            found = self.compare(requirement.arm, requirement.reference, tag=requirement.tag, grader=requirement.grader)
            interval, shown = (found.interval, f"the difference is {found.difference:+.3f}") if found else (None, "")
            items = found.items if found else 0
        if interval is None:
            return Checked(requirement, False, f"no item{where} was answered and graded")
        end = "lower" if requirement.looks_at_low else "upper"
        compared = f"the {end} end of its 95% interval is {requirement.end(interval):+.4f}"
        why = f"{shown} on {items:,} items{where}, and {compared}"
        return Checked(requirement, requirement.holds(interval), why)

    def flips(self, grader: str | None = None) -> tuple[Flip, ...]:
        """Return the items that a pair of arms was graded differently on: first what got worse, then better."""
        graded = self._named(grader)
        found = [
            Flip(item, reference, arm, difference)
            for reference, arm in self.pairs
            for item in self.dataset.items
            for difference in self._differences(graded, arm, reference, None, (item,))
            if difference
        ]
        order = {pair: position for position, pair in enumerate(self.pairs)}
        return tuple(sorted(found, key=lambda flip: (order[flip.reference, flip.arm], flip.difference > 0)))

    def grades(self, graded: Graded, item: Item, arm: str) -> Mapping[int, float]:
        """Return the grades of an arm's answers to an item, by repeat."""
        return graded.grades.get(item.id, {}).get(arm, {})

    def write(self, folder: "str | Path") -> "Mapping[str, Path]":
        """Write the report to ``folder`` as HTML, Markdown and JSON, and every item as CSV; return the paths.

        Raises:
            RunError: they cannot be written.
        """
        from steering_ab.report.writing import write_reports

        return write_reports(self, folder)

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        from steering_ab.report.writing import markdown

        return markdown(self)

    def to_html(self) -> str:
        """Return the report as one HTML page."""
        from steering_ab.report.writing import html

        return html(self)

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return self.to_markdown()

    def _named(self, grader: str | None) -> Graded:
        for graded in self.graded:
            if grader is None or graded.grading.name == grader:
                return graded
        known = ", ".join(graded.grading.name for graded in self.graded)
        raise RequirementError(f"there is no grader {grader!r}; there are: {known}")

    def _answers(self, item: Item, arm: str) -> Iterator[Answer]:
        for repeat in range(self.settings.repeats):
            answer = self.answer(item, repeat, arm)
            if answer is not None:
                yield answer

    def _usable(self, graded: Graded, tag: str | None = None) -> Sequence[tuple[str, str]]:
        return [pair for pair in self.pairs if self._differences(graded, pair[1], pair[0], tag)]

    def _items(self, tag: str | None) -> Sequence[Item]:
        return [item for item in self.dataset.items if tag is None or tag in item.tags]

    def _compared(self, graded: Graded, arm: str, reference: str, tag: str | None) -> PairComparison:
        verdicts = self._verdicts(graded, arm, reference, self._items(tag)) if graded.grading.pairwise else None
        return compare(
            graded.grading.name,
            arm,
            reference,
            self._differences(graded, arm, reference, tag),
            bounded=graded.grading.yes_no or graded.grading.pairwise,
            judged=graded.grading.pairwise,
            tag=tag,
            seed=self.settings.seed % 2**32,
            disagreements=None if verdicts is None else sum(not agreed for _, each in verdicts for _, agreed in each),
        )

    def _differences(
        self, graded: Graded, arm: str, reference: str, tag: str | None, items: Sequence[Item] | None = None
    ) -> list[float]:
        """Return the mean difference of each item that both arms were graded on, in the same repeats."""
        items = self._items(tag) if items is None else items
        if graded.grading.pairwise:
            verdicts = self._verdicts(graded, arm, reference, items)
            return [statistics.fmean(preference for preference, _ in each) for _, each in verdicts]
        differences = []
        for item in items:
            ours, theirs = self.grades(graded, item, arm), self.grades(graded, item, reference)
            both = ours.keys() & theirs.keys()
            if both:
                differences.append(statistics.fmean(ours[repeat] - theirs[repeat] for repeat in sorted(both)))
        return differences

    @staticmethod
    def _verdicts(
        graded: Graded, arm: str, reference: str, items: Sequence[Item]
    ) -> list[tuple[Item, list[tuple[float, bool]]]]:
        """Return, for each judged item, the preference for ``arm`` and whether both orders agreed, by repeat."""
        sign = 1 if (reference, arm) in graded.verdicts else -1
        by_item = graded.verdicts.get((reference, arm)) or graded.verdicts.get((arm, reference)) or {}
        return [
            (item, [(sign * verdict.preference, verdict.agreed) for verdict in by_item[item.id].values()])
            for item in items
            if item.id in by_item
        ]

    def _rates(self) -> Iterator[ArmGrade]:
        for graded in self.graded:
            for tag in (None, *self.dataset.tags):
                for arm in self.arms:
                    rate = self._rate(graded, arm, tag)
                    if rate is not None:
                        yield rate

    def _rate(self, graded: Graded, arm: str, tag: str | None) -> ArmGrade | None:
        if graded.grading.pairwise:
            return None
        means = item_means(graded.grades)
        values = [means[item.id][arm] for item in self._items(tag) if arm in means.get(item.id, {})]
        if not values:
            return None
        yes_no, seed = graded.grading.yes_no, self.settings.seed % 2**32
        return arm_grade(graded.grading.name, arm, values, yes_no=yes_no, tag=tag, seed=seed)
