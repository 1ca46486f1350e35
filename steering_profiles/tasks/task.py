"""What a task is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase


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
    shapes: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """Prompts of the same kind in other shapes, by shape: a fit may look at them to choose what generalises."""

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


def single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Return the one token that is ``text``, or None if the tokenizer splits or does not know it."""
    tokens: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens[0] if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id else None
