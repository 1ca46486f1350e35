"""The interface between the API and an engine.

The API uses a :class:`Backend` and nothing below it, so that another engine can take the place of the local one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from steering_profiles.schema import ModelIdentity, Profile
from steering_server.generation.invariance import BatchInvariance
from steering_server.generation.profiles import ProfileCard
from steering_server.generation.requests import BatchOutput, GenerationRequest
from steering_server.generation.tokenizer import TokenizerService


@dataclass(frozen=True)
class ModelCard:
    """The model being served."""

    name: str
    """The served name, which selects the baseline in requests."""
    created: int
    """Unix time when the model was loaded."""
    context_length: int
    """Maximum number of tokens, prompt and completion together."""
    dtype: str
    identity: ModelIdentity
    batch_invariance: BatchInvariance


class Backend(Protocol):
    """An engine with its model, tokenizer and profiles."""

    @property
    def model(self) -> ModelCard:
        """The model being served."""
        ...

    @property
    def profiles(self) -> Mapping[str, ProfileCard]:
        """All profiles of the catalogue by name, usable or not."""
        ...

    @property
    def tokenizer(self) -> TokenizerService:
        """The model's tokenizer."""
        ...

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why this engine cannot apply ``profile`` to its model, or None if it can."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> BatchOutput:
        """Run ``requests`` in one batch and yield ``(index, chunk)`` pairs until all of them have finished.

        The API has checked that sequences fit the context and that the engine does not refuse the profiles. Closing the
        generator cancels the requests that are still running.

        Raises:
            Overloaded: the queue is full.
            EngineError: the engine failed, or was stopped before the requests finished.
        """
        ...

    async def start(self) -> None:
        """Begin to run requests."""
        ...

    async def close(self) -> None:
        """Stop the engine; requests that are still running are cancelled."""
        ...
