"""Tasks: prompts whose next token is known, in sub-task groups, split into train, dev and test."""

from steering_profiles.tasks.arithmetic import arithmetic
from steering_profiles.tasks.catalogue import (
    TASKS,
    VARIANTS,
    every_prompt_of,
    make_task,
    require_countable,
    require_known,
    task_name,
    variants_of,
)
from steering_profiles.tasks.factual_recall import RECALL_TASKS, factual_recall, factual_recall_variants
from steering_profiles.tasks.jsonl import jsonl_task
from steering_profiles.tasks.parentheses import parentheses, parentheses_variants
from steering_profiles.tasks.task import Example, Task

__all__ = [
    "RECALL_TASKS",
    "TASKS",
    "VARIANTS",
    "Example",
    "Task",
    "arithmetic",
    "every_prompt_of",
    "factual_recall",
    "factual_recall_variants",
    "jsonl_task",
    "make_task",
    "parentheses",
    "parentheses_variants",
    "require_countable",
    "require_known",
    "task_name",
    "variants_of",
]
