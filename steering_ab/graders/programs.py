"""A grader that runs Python tests on the answer, in the sandbox that HumanEval uses."""

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer, text_column

SECONDS = 10.0
"""Time limit of a program."""
_MOST_SECONDS = 600.0
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class PythonTests:
    """Whether the item's ``tests`` (or ``test``) run to their end after the answer.

    The program is the prompt, the answer that continues it, and the tests. An answer to messages, or one with a fenced
    block of code, is the program's beginning by itself. With ``entry_point`` the tests define ``check``, as HumanEval's
    do, which is called with it.
    """

    seconds: float = SECONDS
    yes_no: ClassVar[bool] = True

    def require(self, item: Item) -> None:
        """Check that the item has tests, and that the sandbox can run them."""
        if not text_column(item, "tests", "test"):
            raise GraderError("tests: is missing; the grader python runs it after the answer")
        text_column(item, "entry_point")

    def grade(self, item: Item, answer: Answer) -> float:
        """Return 1 if the program ends without an exception, within the time.

        Raises:
            EvaluationError: the sandbox cannot be set up.
        """
        from steering_profiles.evaluation.sandbox import Outcome, run_program

        return float(run_program(self.program(item, answer.text), self.seconds) is Outcome.PASSED)

    def program(self, item: Item, text: str) -> str:
        """Return the program that tests ``text``."""
        fenced = _FENCED.findall(text)
        solution = fenced[-1] if fenced else f"{item.prompt or ''}{text}"
        entry_point = text_column(item, "entry_point")
        call = f"\n\ncheck({entry_point.strip()})\n" if entry_point else "\n"
        return f"{solution}\n\n{text_column(item, 'tests', 'test')}{call}"


def python_tests(argument: str | None) -> PythonTests:
    """Return the grader for a time limit in seconds.

    Raises:
        GraderError: the argument is not a number of seconds.
        EvaluationError: the sandbox cannot run programs here.
    """
    from steering_profiles.evaluation.sandbox import require_sandbox

    try:
        seconds = SECONDS if argument is None else float(argument.removesuffix("s"))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST_SECONDS:
        raise GraderError(f"grader python:{argument}: allowed: a time limit of up to {_MOST_SECONDS:g} seconds")
    require_sandbox()
    return PythonTests(seconds)
