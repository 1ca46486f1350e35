"""What of a task a model has room for: a prompt longer than its context cannot be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steering_profiles.errors import TaskError
from steering_profiles.tasks.task import Example, Task


def within_context(task: Task, context: int) -> Task:
    """Leave out the prompts of ``task`` that are longer than ``context`` tokens, and say so in its ``left_out``.

    A shape of which one prompt is too long is left out whole: with the short ones alone it would not be that shape.

    Raises:
        TaskError: a split would be left without any prompt of a group.
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
    reasons += [
        f"prompt format {name}: too long for a context of {context} tokens"
        for name in task.fit_formats
        if name not in formats
    ]
    pairs = tuple(pair for pair in task.pairs if _fits(pair.clean, context) and _fits(pair.counterfactual, context))
    left_out = (*task.left_out, *reasons)
    return replace(task, train=train, dev=dev, test=test, fit_formats=formats, pairs=pairs, left_out=left_out)


def formats_within_context(formats: Mapping[str, Sequence[Example]], context: int) -> dict[str, tuple[Example, ...]]:
    """Return the formats none of whose prompts is longer than ``context`` tokens."""
    return {name: tuple(examples) for name, examples in formats.items() if all(_fits(one, context) for one in examples)}


def _fits(example: Example, context: int) -> bool:
    return len(example.prompt) <= context
