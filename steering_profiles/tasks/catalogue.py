"""The tasks that can be fitted and evaluated: built-in tasks, and the user's own JSON Lines files.

The *source* of a task is a name in :data:`TASKS` or the path of a ``.jsonl`` file.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from steering_profiles.errors import TaskError
from steering_profiles.tasks.arithmetic import arithmetic
from steering_profiles.tasks.context_limit import formats_within_context, within_context
from steering_profiles.tasks.factual_recall import RECALL_TASKS, factual_recall, factual_recall_held_out_formats
from steering_profiles.tasks.jsonl import jsonl_task, name_of
from steering_profiles.tasks.parentheses import every_parentheses, parentheses, parentheses_held_out_formats
from steering_profiles.tasks.task import Example, Task, looks_at_next_tokens, no_conditions, no_group_conditions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASKS: dict[str, Callable[["PreTrainedTokenizerBase", int], Task]] = {
    "parentheses": parentheses,
    "arithmetic": arithmetic,
    **{name: partial(factual_recall, task=name) for name in RECALL_TASKS},
    "arithmetic-whole": partial(arithmetic, whole=True),
}
"""Functions that make the built-in tasks from a tokenizer and a seed."""

HELD_OUT_FORMATS: dict[str, Callable[["PreTrainedTokenizerBase", int], dict[str, tuple[Example, ...]]]] = {
    "parentheses": parentheses_held_out_formats,
    **{name: partial(factual_recall_held_out_formats, task=name) for name in RECALL_TASKS},
}
"""Functions that make the prompts of a task in formats that no fit sees, for tasks that have such formats."""

EVERY_PROMPT: dict[str, Callable[["PreTrainedTokenizerBase"], tuple[Example, ...]]] = {"parentheses": every_parentheses}
"""Functions that make all prompts of a task in its own format, for tasks with a finite number of prompts."""

WITH_CONDITIONS = frozenset({"parentheses", *(name for name, kind in RECALL_TASKS.items() if not kind.shots)})
"""Built-in tasks that have conditions. A file has none."""

WHOLE_ANSWERS = frozenset({"arithmetic-whole"})
"""Built-in tasks that ask for whole answers. Whether a file does is known when it is read with a tokenizer."""


def require_known(source: str) -> None:
    """Check that ``source`` is the name of a task or the path of a ``.jsonl`` file.

    Raises:
        TaskError: it is neither; the message lists what is allowed.
    """
    if source in TASKS:
        return
    allowed = f"known tasks: {', '.join(TASKS)}; or the path of a .jsonl file"
    if not _is_jsonl(source):
        raise TaskError(f"task is {source!r}; {allowed}")
    if not Path(source).is_file():
        raise TaskError(f"task is {source!r}, but this file does not exist; {allowed}")
    if name_of(source) in TASKS:
        raise TaskError(f"task is {source!r}, whose name is that of a built-in task; rename the file")


def make_task(source: str, tokenizer: "PreTrainedTokenizerBase", seed: int = 0, context: int | None = None) -> Task:
    """Make the task ``source`` for ``tokenizer`` and a model with a context of ``context`` tokens.

    Raises:
        TaskError: there is no such task, it cannot be used with the tokenizer or the context, or its file is invalid.
    """
    require_known(source)
    make = TASKS[source] if source in TASKS else partial(jsonl_task, source)
    task = make(tokenizer, seed)
    return task if context is None else within_context(task, context)


def task_name(source: str) -> str:
    """Return the name of the task ``source``, which is also a valid name of a profile.

    Raises:
        TaskError: there is no such task.
    """
    require_known(source)
    return source if source in TASKS else name_of(source)


def held_out_formats_of(
    source: str, tokenizer: "PreTrainedTokenizerBase", seed: int = 0, context: int | None = None
) -> dict[str, tuple[Example, ...]]:
    """Return the prompts of the task's held-out formats, by format; empty for a task that has none.

    A format with a prompt longer than ``context`` tokens is left out.

    Raises:
        TaskError: there is no such task.
    """
    require_known(source)
    made = HELD_OUT_FORMATS[source](tokenizer, seed) if source in HELD_OUT_FORMATS else {}
    return made if context is None else formats_within_context(made, context)


def require_countable(source: str) -> None:
    """Check that all prompts of the task in its own format can be listed.

    Raises:
        TaskError: they cannot; the message lists the tasks with which it is possible.
    """
    if source not in EVERY_PROMPT:
        raise TaskError(f"task is {source!r}, whose prompts cannot all be listed; allowed: {', '.join(EVERY_PROMPT)}")


def require_conditions(source: str) -> None:
    """Check, without a model, that the known task ``source`` has conditions.

    Raises:
        TaskError: it has none.
    """
    if source not in WITH_CONDITIONS:
        raise no_conditions(task_name(source))


def require_group_conditions(source: str) -> None:
    """Check, without a model, that the sub-tasks of the known task ``source`` can be recognised by a condition.

    Raises:
        TaskError: they cannot.
    """
    if source not in RECALL_TASKS:
        raise no_group_conditions(task_name(source))


def require_next_tokens(source: str, what: str) -> None:
    """Check, without a model, that the known task ``source`` asks for next tokens, as ``what`` needs it.

    Raises:
        TaskError: it is a built-in task that asks for whole answers.
    """
    if source in WHOLE_ANSWERS:
        raise looks_at_next_tokens(what, source)


def every_prompt_of(source: str, tokenizer: "PreTrainedTokenizerBase", context: int) -> tuple[Example, ...]:
    """Return all prompts of the task in its own format with at most ``context`` tokens, including those used in fits.

    Raises:
        TaskError: the prompts of the task cannot all be listed.
    """
    require_countable(source)
    return tuple(example for example in EVERY_PROMPT[source](tokenizer) if len(example.scored_tokens) <= context)


def _is_jsonl(source: str) -> bool:
    return Path(source).suffix.lower() == ".jsonl"
