"""Tasks: prompts whose next token is known, in sub-task groups, split into train, dev and test."""

from steering_profiles.tasks.catalogue import TASKS, VARIANTS, require_known
from steering_profiles.tasks.parentheses import parentheses, parentheses_variants
from steering_profiles.tasks.task import Example, Task

__all__ = ["TASKS", "VARIANTS", "Example", "Task", "parentheses", "parentheses_variants", "require_known"]
