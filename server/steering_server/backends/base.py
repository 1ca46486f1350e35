"""The seam between the API and whatever generates tokens.

The API talks to a :class:`Backend` and to nothing below it, so that another engine can take the place of ours.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from steering_profiles.schema import ModelIdentity
from steering_profiles.store import Entry
from steering_server.engine.requests import Chunk, Piece, SamplingParams


@dataclass(frozen=True)
class ModelCard:
    """The model being served."""

    name: str
    """The served name: the baseline's model name in requests."""
    created: int
    """Unix time at which it was loaded."""
    context_length: int
    """Most tokens of prompt and completion together."""
    dtype: str
    identity: ModelIdentity


@dataclass(frozen=True)
class ProfileCard:
    """A profile of the catalogue and whether this server can apply it."""

    entry: Entry
    usable: bool
    forced: bool
    """It was made for another model and is applied because the operator said so."""
    reason: str | None
    """Why it is not usable, or what differs where it was forced."""


@dataclass(frozen=True)
class ProfileStrength:
    """One profile of an arm, and its strength."""

    profile: str
    strength: float = 1.0


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate: token ids, the profiles applied to it, and how it goes on."""

    prompt: tuple[int, ...]
    sampling: SamplingParams
    profiles: tuple[ProfileStrength, ...] = ()


@dataclass(frozen=True)
class Spelling:
    """A token by itself, outside of any text."""

    text: str
    """For people; tokens may read alike."""
    entry: str
    """Its entry in the vocabulary."""
    raw: bytes
    """What it adds to a text; nothing for a special token."""


class Backend(Protocol):
    """Something that turns token ids into tokens, steered."""

    @property
    def model(self) -> ModelCard:
        """The model being served."""
        ...

    @property
    def profiles(self) -> Mapping[str, ProfileCard]:
        """Every profile of the catalogue, by name, usable or not."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn a prompt into token ids."""
        ...

    def echo(self, prompt: Sequence[int], *, is_all: bool) -> tuple[Piece, ...]:
        """Return what each token of a prompt adds to its text; ``is_all``: nothing is generated after it."""
        ...

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, begin_turn: bool = True, continue_last: bool = False
    ) -> tuple[int, ...]:
        """Turn chat messages into the token ids of the model's chat template.

        ``begin_turn`` begins the assistant's turn after them; ``continue_last`` ends with the last message's text.

        Raises:
            RequestError: the model has no chat template, or the template refuses these messages or hides the text that
                is to be continued.
        """
        ...

    def spelling(self, token: int) -> Spelling:
        """Return how a token is written by itself."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[tuple[int, Chunk], None]:
        """Run ``requests`` in one batch and yield ``(index, chunk)`` as they come, until every one has finished.

        Closing the generator cancels what is still running.

        Raises:
            RequestError: a profile is unknown or unusable, some do not compose, or a prompt does not fit the context.
            Overloaded: too much is queued already.
            EngineError: the engine failed, or was stopped before it was done.
        """
        ...

    async def start(self) -> None:
        """Begin to take requests."""
        ...

    async def close(self) -> None:
        """Stop; what is still running is cancelled."""
        ...
