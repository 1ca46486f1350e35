"""The seam between the API and whatever generates tokens.

The API talks to a :class:`Backend` and to nothing below it, so that another engine can take the place of ours.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from steering_profiles.schema import ModelIdentity, Profile
from steering_server.generation.profiles import ProfileCard
from steering_server.generation.requests import Chunk, GenerationRequest
from steering_server.generation.tokenizer import TokenizerService


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

    @property
    def tokenizer(self) -> TokenizerService:
        """The model's tokenizer."""
        ...

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why this engine cannot apply ``profile`` to its model, or None if it can."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[tuple[int, Chunk], None]:
        """Run ``requests`` in one batch and yield ``(index, chunk)`` as they come, until every one has finished.

        They are taken as checked: prompts fit the context, and what is applied fits the model and composes. Closing the
        generator cancels what is still running.

        Raises:
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
