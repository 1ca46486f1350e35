"""What a task is."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """A prompt and the one token that should come next."""

    group: str
    """The sub-task that it belongs to."""
    text: str
    prompt: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Task:
    """Next-token prompts with a small set of candidate answers, one per group."""

    name: str
    seed: int
    candidates: dict[str, int]
    """Group to answer token, in the order in which groups are reported."""
    left_out: tuple[str, ...]
    """Groups that this tokenizer cannot express, each with the reason."""
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """The sub-tasks, in order."""
        return tuple(self.candidates)

    @property
    def split_sizes(self) -> dict[str, int]:
        """How many examples each split has."""
        return {"train": len(self.train), "dev": len(self.dev), "test": len(self.test)}


def single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Return the one token that is ``text``, or None if the tokenizer splits or does not know it."""
    tokens: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens[0] if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id else None
