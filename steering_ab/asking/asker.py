"""What answers items, and what can go wrong."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from steering_ab.datasets.item import Item
from steering_ab.errors import ABError
from steering_ab.graders.grader import Answer

BASELINE = "baseline"


@dataclass(frozen=True)
class AskSettings:
    """How every item is asked."""

    temperature: float = 0.0
    max_tokens: int = 16
    """Maximum number of tokens of an answer, unless the item has its own."""
    seed: int = 0
    chat: bool = False
    """Whether a prompt is sent as the message of a user."""

    def tokens_of(self, item: Item) -> int:
        """Return the maximum number of tokens of an answer to ``item``."""
        return item.max_tokens or self.max_tokens

    def messages_of(self, item: Item) -> list[dict[str, str]] | None:
        """Return the conversation to send for ``item``; None if its prompt is completed."""
        if item.messages:
            return [dict(message) for message in item.messages]
        return [{"role": "user", "content": item.prompt or ""}] if self.chat else None

    def seed_of(self, item: Item, repeat: int) -> int:
        """Return the seed of an item's random numbers, which all of its arms share; it fits 31 bits."""
        digest = hashlib.sha256(f"{self.seed}\0{item.id}\0{repeat}".encode()).digest()
        return int.from_bytes(digest[:4]) >> 1


class Refused(ABError):
    """The server refuses this item, such as a prompt that is too long; it would do so again."""


class Unanswered(ABError):
    """The item was not answered this time."""


@dataclass(frozen=True)
class Facts:
    """What is known of the one who answers, for the report and to tell one run from another."""

    model: str
    where: str
    """``in this process``, a URL, or what the function is called."""
    arms: Mapping[str, Any]
    """What each arm is: its profiles' hashes, or the model it names."""
    versions: Mapping[str, str]


class Asker(Protocol):
    """Answers items under several arms."""

    @property
    def together(self) -> bool:
        """Whether all arms of an item are answered by one request."""

    async def facts(self, arms: Mapping[str, str]) -> Facts:
        """Check that the arms exist, and return what is known of them.

        Raises:
            AskingError: an arm does not exist, or nobody answers.
        """

    async def answer(self, item: Item, arms: Mapping[str, str], repeat: int) -> Mapping[str, Answer]:
        """Return the answer of each of ``arms`` to ``item``.

        Raises:
            Refused: the item cannot be answered.
            Unanswered: it was not answered this time.
            AskingError: no item will be answered.
        """

    async def score(self, item: Item, arms: Mapping[str, str]) -> Mapping[str, Answer]:
        """Return, for each of ``arms``, the log-probabilities of the item's choices. Raises what ``answer`` does."""
