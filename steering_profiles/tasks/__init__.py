"""Tasks: prompts whose next token is known, in sub-task groups, split into train, dev and test."""

from steering_profiles.tasks.parentheses import parentheses, parentheses_variants
from steering_profiles.tasks.task import Example, Task

TASKS = {"parentheses": parentheses}
"""Every task that can be fitted and evaluated, by name."""

__all__ = ["TASKS", "Example", "Task", "parentheses", "parentheses_variants"]
