"""Tasks: prompts with a known next token, in sub-task groups, split into train, dev and test."""

from steering_profiles.tasks.arithmetic import arithmetic
from steering_profiles.tasks.catalogue import (
    HELD_OUT_FORMATS,
    TASKS,
    every_prompt_of,
    held_out_formats_of,
    make_task,
    require_conditions,
    require_countable,
    require_group_conditions,
    require_known,
    require_next_tokens,
    task_name,
)
from steering_profiles.tasks.factual_recall import RECALL_TASKS, factual_recall, factual_recall_held_out_formats
from steering_profiles.tasks.jsonl import jsonl_task
from steering_profiles.tasks.parentheses import parentheses, parentheses_held_out_formats
from steering_profiles.tasks.task import Example, Task

__all__ = [
    "HELD_OUT_FORMATS",
    "RECALL_TASKS",
    "TASKS",
    "Example",
    "Task",
    "arithmetic",
    "every_prompt_of",
    "factual_recall",
    "factual_recall_held_out_formats",
    "held_out_formats_of",
    "jsonl_task",
    "make_task",
    "parentheses",
    "parentheses_held_out_formats",
    "require_conditions",
    "require_countable",
    "require_group_conditions",
    "require_known",
    "require_next_tokens",
    "task_name",
]
