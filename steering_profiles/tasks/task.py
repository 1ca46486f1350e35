"""What a task is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_T = TypeVar("_T")


@dataclass(frozen=True)
class Example:
    """A prompt and the one token that should come next."""

    group: str
    """The sub-task that it belongs to."""
    text: str
    prompt: tuple[int, ...]
    answer: int
    candidates: tuple[int, ...] = ()
    """The answers to choose from, the right one among them; empty where any token may be the answer."""
    topic: tuple[int, int] | None = None
    """Where in ``prompt`` the thing asked about stands: its first token, and one past its last; None if not known."""
    template: str = ""
    """Prompts of one group and template differ in the topic alone; empty where that is not known."""


@dataclass(frozen=True)
class Pair:
    """A prompt and its counterfactual twin, which asks for another answer."""

    clean: Example
    counterfactual: Example


@dataclass(frozen=True)
class Task:
    """Next-token prompts in groups, split into train, dev and test."""

    name: str
    seed: int
    groups: tuple[str, ...]
    """The sub-tasks, in the order in which they are reported."""
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    left_out: tuple[str, ...] = ()
    """What could not be used with this tokenizer, each with the reason."""
    fit_formats: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """Prompts of the same task in other formats, by format: a fit uses them to find a profile that generalises."""
    pairs: tuple[Pair, ...] = ()
    """Train prompts with their counterfactual twins, where the task has such."""

    @property
    def split_sizes(self) -> dict[str, int]:
        """How many examples each split has."""
        return {"train": len(self.train), "dev": len(self.dev), "test": len(self.test)}

    @property
    def answers(self) -> dict[str, int]:
        """The one answer of each group; empty if some group has several, or if there is but one group."""
        of_group = {
            group: {example.answer for example in self.train if example.group == group} for group in self.groups
        }
        if len(self.groups) < 2 or any(len(answers) != 1 for answers in of_group.values()):
            return {}
        return {group: next(iter(answers)) for group, answers in of_group.items()}


def single_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> int | None:
    """Return the one token that is ``text``, or None if the tokenizer splits or does not know it."""
    tokens: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens[0] if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id else None


def balanced(examples: Sequence[Example]) -> list[Example]:
    """Return ``examples`` in an order in which every part of the list has its share of each group."""
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for example in examples:
        seen[example.group] = seen.get(example.group, -1) + 1
        ranked.append((seen[example.group], len(ranked)))
    return [examples[index] for _, index in sorted(ranked)]


def round_robin(lists: Sequence[Sequence[_T]]) -> list[_T]:
    """Return the first of every list, then the second of every list, and so on."""
    return [thing for turn in zip_longest(*lists) for thing in turn if thing is not None]
