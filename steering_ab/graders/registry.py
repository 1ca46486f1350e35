"""Graders by name: the built-in ones, and those of the entry point group ``steering_server.graders``.

An entry point is a callable that takes the text after the colon in ``NAME:TEXT`` (None without one) and returns a
grader: an object with ``yes_no`` and ``grade(item, answer)``, and if it likes ``require(item)``; see
:class:`~steering_ab.graders.grader.Grader`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from steering_ab.datasets.item import Item
from steering_ab.errors import ABError, GraderError
from steering_ab.graders.choosing import likeliest_choice
from steering_ab.graders.grader import Answer, Grader, NamedGrader
from steering_ab.graders.judge import Judge, JudgeModel
from steering_ab.graders.lengths import length
from steering_ab.graders.matching import MATCHES, RegexMatch, text_match
from steering_ab.graders.numbers import number_match
from steering_ab.graders.programs import python_tests
from steering_ab.graders.schemas import schema_match

GROUP = "steering_server.graders"
"""Entry point group of graders."""
JUDGE = "judge"

_BUILT_IN: dict[str, Callable[[str | None], Grader]] = {
    "regex": RegexMatch,
    "number": number_match,
    "json": schema_match,
    "choice": likeliest_choice,
    "length": length,
    "python": python_tests,
}
BUILT_IN = (*MATCHES, *_BUILT_IN, JUDGE)


def named_grader(text: str, judge: JudgeModel | None = None) -> NamedGrader:
    """Return the grader that ``text`` names, as ``NAME`` or ``NAME:ARGUMENT``.

    Raises:
        GraderError: there is no such grader, its argument is not allowed, or it cannot be loaded.
        EvaluationError: it runs programs, and the sandbox cannot do so here.
    """
    kind, colon, rest = text.strip().partition(":")
    argument = rest if colon else None
    if colon and not rest.strip():
        raise GraderError(f"grader {text!r} has a colon and no argument after it")
    name = kind if argument is None else f"{kind}:{argument}"
    if kind in MATCHES:
        return NamedGrader(name, text_match(kind, argument))
    if kind in _BUILT_IN:
        return NamedGrader(name, _BUILT_IN[kind](argument))
    if kind == JUDGE:
        if judge is None:
            raise GraderError("grader judge needs a model to ask; give --judge-url and --judge-model")
        return NamedGrader(name, Judge(judge.ask, argument), judge.name)
    return NamedGrader(name, _own(kind, argument))


def default_grader(item: Item) -> str:
    """Return the name of the grader that suits what the item has.

    Raises:
        GraderError: it has nothing to grade by.
    """
    if item.choices:
        return "choice"
    if "tests" in item.columns or ("test" in item.columns and "entry_point" in item.columns):
        return "python"
    if "schema" in item.columns:
        return "json"
    if item.expected:
        return "normalised"
    raise GraderError(
        "has none of expected, choices, tests and schema to grade answers by; add one, or choose a grader that needs "
        "none, such as length or judge"
    )


@dataclass(frozen=True)
class OwnGrader:
    """A grader of an entry point, whose grades are checked."""

    name: str
    grader: Any

    @property
    def yes_no(self) -> bool:
        """Whether every grade is 0 or 1."""
        return bool(self.grader.yes_no)

    def require(self, item: Item) -> None:
        """Check the item as the grader does, if it does."""
        check = getattr(self.grader, "require", None)
        if check is None:
            return
        try:
            check(item)
        except ABError:
            raise
        except Exception as exc:
            raise GraderError(f"grader {self.name}: {exc_text(exc)}") from exc

    def grade(self, item: Item, answer: Answer) -> float:
        """Return the grade.

        Raises:
            GraderError: it is not a finite number, or not 0 or 1 where these are promised.
        """
        grade = self.grader.grade(item, answer)
        try:
            value = float(grade)
        except (TypeError, ValueError) as exc:
            raise GraderError(f"returned {grade!r:.60}; allowed: a number") from exc
        if not math.isfinite(value) or (self.yes_no and value not in (0, 1)):
            allowed = "0 or 1, since it has yes_no" if self.yes_no else "a finite number"
            raise GraderError(f"returned {grade!r:.60}; allowed: {allowed}")
        return value


def exc_text(exc: BaseException) -> str:
    """Return an exception of someone else's code as text: ``ValueError: its message``."""
    lines = str(exc).splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def _own(kind: str, argument: str | None) -> OwnGrader:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in found:
        known = ", ".join((*BUILT_IN, *sorted(set(found) - set(BUILT_IN))))
        raise GraderError(f"there is no grader {kind!r}; there are: {known}")
    return OwnGrader(kind, _made(found[kind], argument))


def _made(entry: EntryPoint, argument: str | None) -> Any:
    try:
        grader = entry.load()(argument)
    except GraderError:
        raise
    except Exception as exc:
        raise GraderError(f"grader {entry.name} ({entry.value}) cannot be made: {exc_text(exc)}") from exc
    for wanted in ("yes_no", "grade"):
        if not hasattr(grader, wanted):
            raise GraderError(f"grader {entry.name} ({entry.value}) has no {wanted}; a grader has yes_no and grade")
    return grader
