"""Batches of prompts of equal length, which need no padding."""

from collections.abc import Callable, Iterator, Sequence

from steering_profiles.tasks.task import Example

BATCH_SIZE = 64
"""Maximum number of prompts in a batch."""


def equal_length_batches(
    examples: Sequence[Example], tokens: Callable[[Example], Sequence[int]] = lambda example: example.prompt
) -> Iterator[list[int]]:
    """Yield lists of at most ``BATCH_SIZE`` indices of examples whose ``tokens``, the prompts, have the same length."""
    by_length: dict[int, list[int]] = {}
    for index, example in enumerate(examples):
        by_length.setdefault(len(tokens(example)), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), BATCH_SIZE):
            yield indices[start : start + BATCH_SIZE]
