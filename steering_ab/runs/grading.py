"""Grading of answers. Grades are kept as they come, and are not made again as long as answer and item are the same."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from os import cpu_count
from typing import Any

from steering_ab.datasets.item import Item
from steering_ab.errors import ABError
from steering_ab.graders.grader import Answer, Grader, NamedGrader, PairwiseGrader, Verdict
from steering_ab.graders.planning import Grading
from steering_ab.graders.programs import PythonTests
from steering_ab.graders.registry import exc_text

Slots = asyncio.Semaphore
Found = Callable[[Item, int, str], Answer | None]
"""Returns the answer of an arm to an item in a repeat, if there is one."""


@dataclass(frozen=True)
class GradingFailure:
    """An answer, or a pair of answers, that a grader failed on."""

    grader: str
    line: int
    arms: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}, {' and '.join(self.arms)}: grader {self.grader}: {self.reason}"


@dataclass
class Graded:
    """The grades of one grading."""

    grading: Grading
    grades: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    """Grade by item, arm and repeat."""
    verdicts: dict[tuple[str, str], dict[str, dict[int, Verdict]]] = field(default_factory=dict)
    """Verdict by pair of arms, item and repeat."""
    failures: list[GradingFailure] = field(default_factory=list)


class GradeCache:
    """Grades by the content that they depend on; new ones are given to ``keep``."""

    def __init__(self, records: Sequence[Mapping[str, Any]], keep: Callable[[dict[str, Any]], None]) -> None:
        self._found = {record["key"]: record for record in records if _is_whole(record)}
        self._keep = keep

    def get(self, key: str) -> Mapping[str, Any] | None:
        """Return the record of this key, if there is one."""
        return self._found.get(key)

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record."""
        self._found[key] = {"key": key, **record}
        self._keep({"key": key, **record})


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Return whether a record is of a grade or of a verdict; another one is made again."""
    grade = record.get("grade", record.get("preference"))
    is_verdict = isinstance(record.get("agreed"), bool) and isinstance(record.get("replies"), list)
    return isinstance(record.get("key"), str) and isinstance(grade, int | float) and ("grade" in record or is_verdict)


@dataclass(frozen=True)
class _Job:
    item: Item
    repeat: int
    arms: tuple[str, ...]
    answers: tuple[Answer, ...]
    named: NamedGrader

    @property
    def key(self) -> str:
        item = self.item
        content = [
            [self.named.name, self.named.identity],
            [item.question, item.expected, item.choices, dict(item.columns)],
            [[answer.text, answer.tokens, answer.choice_logprobs] for answer in self.answers],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()[:24]

    @property
    def about(self) -> dict[str, Any]:
        return {"grader": self.named.name, "item": self.item.id, "repeat": self.repeat, "arms": list(self.arms)}


async def grade_all(
    gradings: Sequence[Grading],
    items: Sequence[Item],
    arms: Sequence[str],
    repeats: int,
    found: Found,
    cache: GradeCache,
    concurrency: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> tuple[Graded, ...]:
    """Grade all answers. What a grader fails on is noted, and the rest goes on.

    Programs are run on all cores, the judge is asked ``concurrency`` questions at once, and other graders grade one
    answer after the other.
    """
    programs, others = asyncio.Semaphore(cpu_count() or 1), asyncio.Semaphore(1)
    judge = asyncio.Semaphore(concurrency)
    results = []
    for grading in gradings:
        graded = Graded(grading)
        jobs = list(_jobs(grading, items, arms, repeats, found))
        tasks = [
            asyncio.create_task(_grade(job, graded, cache, _slots(job.named.grader, programs, judge, others), advance))
            for job in jobs
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        graded.failures.sort(key=lambda failure: failure.line)
        results.append(graded)
    return tuple(results)


def number_of_jobs(
    gradings: Sequence[Grading], items: Sequence[Item], arms: Sequence[str], repeats: int, found: Found
) -> int:
    """Return how many answers and pairs are to be graded."""
    return sum(1 for grading in gradings for _ in _jobs(grading, items, arms, repeats, found))


def _jobs(grading: Grading, items: Sequence[Item], arms: Sequence[str], repeats: int, found: Found) -> Any:
    for item in items:
        named = grading.by_item.get(item.id)
        if named is None:
            continue
        for repeat in range(repeats):
            answers = {arm: found(item, repeat, arm) for arm in arms}
            # An item counts only where every arm has answered it: the comparison is paired.
            if any(answer is None for answer in answers.values()):
                continue
            groups = [(arm,) for arm in arms] if isinstance(named.grader, Grader) else list(combinations(arms, 2))
            for group in groups:
                yield _Job(item, repeat, group, tuple(answers[arm] for arm in group), named)  # type: ignore[misc]


def _slots(grader: Grader | PairwiseGrader, programs: Slots, judge: Slots, others: Slots) -> Slots:
    if isinstance(grader, PythonTests):
        return programs
    return judge if isinstance(grader, PairwiseGrader) else others


async def _grade(
    job: _Job, graded: Graded, cache: GradeCache, slots: asyncio.Semaphore, advance: Callable[[int], None]
) -> None:
    key = job.key
    try:
        record = cache.get(key)
        if record is None:
            async with slots:
                record = await _made(job)
            cache.put(key, job.about | record)
        _take(job, graded, record)
    except ABError as exc:
        graded.failures.append(GradingFailure(job.named.name, job.item.line, job.arms, str(exc)))
    except Exception as exc:  # of a grader of the user's own, or of the sandbox
        graded.failures.append(GradingFailure(job.named.name, job.item.line, job.arms, exc_text(exc)))
    advance(1)


async def _made(job: _Job) -> dict[str, Any]:
    grader = job.named.grader
    if isinstance(grader, PairwiseGrader):
        verdict = await grader.prefer(job.item, *job.answers)
        return {"preference": verdict.preference, "agreed": verdict.agreed, "replies": list(verdict.replies)}
    assert isinstance(grader, Grader)
    return {"grade": await asyncio.to_thread(grader.grade, job.item, job.answers[0])}


def _take(job: _Job, graded: Graded, record: Mapping[str, Any]) -> None:
    if len(job.arms) == 2:
        first, second = job.arms
        by_item = graded.verdicts.setdefault((first, second), {})
        verdict = Verdict(float(record["preference"]), bool(record["agreed"]), tuple(record.get("replies", ())))
        by_item.setdefault(job.item.id, {})[job.repeat] = verdict
    else:
        by_arm = graded.grades.setdefault(job.item.id, {})
        by_arm.setdefault(job.arms[0], {})[job.repeat] = float(record["grade"])
