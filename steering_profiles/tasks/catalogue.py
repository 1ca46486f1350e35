"""The tasks that can be fitted and evaluated, by name."""

from steering_profiles.errors import TaskError
from steering_profiles.tasks.parentheses import parentheses, parentheses_variants

TASKS = {"parentheses": parentheses}
"""What makes each task."""

VARIANTS = {"parentheses": parentheses_variants}
"""What makes the prompts of each task that no fit sees."""


def require_known(task: str) -> None:
    """Refuse the name of a task that there is not.

    Raises:
        TaskError: naming those that there are.
    """
    if task not in TASKS:
        raise TaskError(f"task is {task!r}; known tasks: {', '.join(TASKS)}")
