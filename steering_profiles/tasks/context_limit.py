"""Restrict tasks to the prompts that fit into a model's context."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steering_profiles.errors import TaskError
from steering_profiles.tasks.task import Example, Task


def within_context(task: Task, context: int) -> Task:
    """Return ``task`` without the prompts that are longer than ``context`` tokens; ``left_out`` counts them.

    A prompt format with a prompt that is too long is left out as a whole, since its short prompts do not represent it.

    Raises:
        TaskError: all prompts of a group in a split are too long.
    """
    reasons: list[str] = []

    def kept(split: str, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        short = tuple(example for example in examples if _fits(example, context))
        lost = {example.group for example in examples} - {example.group for example in short}
        too_long = f"longer than the model's context of {context} tokens"
        if lost:
            raise TaskError(f"{task.name}: every {split} prompt of {', '.join(sorted(lost))} is {too_long}")
        if len(short) < len(examples):
            reasons.append(f"{len(examples) - len(short)} of {len(examples)} {split} prompts: {too_long}")
        return short

    train, dev, test = kept("train", task.train), kept("dev", task.dev), kept("test", task.test)
    formats = formats_within_context(task.fit_formats, context)
    choosing = formats_within_context(task.choosing_formats, context)
    reasons += [
        f"prompt format {name}: too long for a context of {context} tokens"
        for name in (*task.fit_formats, *task.choosing_formats)
        if name not in formats and name not in choosing
    ]
    pairs = tuple(pair for pair in task.pairs if _fits(pair.clean, context) and _fits(pair.counterfactual, context))
    left_out = (*task.left_out, *reasons)
    return replace(
        task,
        train=train,
        dev=dev,
        test=test,
        fit_formats=formats,
        choosing_formats=choosing,
        pairs=pairs,
        left_out=left_out,
    )


def formats_within_context(formats: Mapping[str, Sequence[Example]], context: int) -> dict[str, tuple[Example, ...]]:
    """Return the prompt formats in which every prompt has at most ``context`` tokens."""
    return {name: tuple(examples) for name, examples in formats.items() if all(_fits(one, context) for one in examples)}


def _fits(example: Example, context: int) -> bool:
    return len(example.scored_tokens) <= context
