"""The interface between the API and an engine.

The API uses a :class:`Backend` and nothing below it, so that another engine can take the place of the local one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from steering_profiles.schema import ModelIdentity, Profile
from steering_server.generation.invariance import BatchInvariance
from steering_server.generation.registry import ProfileRegistry
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


@dataclass(frozen=True)
class EngineStats:
    """State of an engine at one moment, and what it has counted since it was created."""

    running: int
    """Sequences that run."""
    waiting: int
    """Sequences that wait to run, preempted ones included."""
    preemptions: int
    """Sequences that were preempted so far, each time counted."""
    kv_cache_running: int
    """Bytes of KV cache that running sequences hold."""
    kv_cache_kept: int
    """Bytes of KV cache kept of finished sequences, for those that begin alike; given up where memory is needed."""
    kv_cache_capacity: int
    """Bytes of KV cache in all."""
    prefix_cache_queries: int
    """Tokens so far that were looked up in the prefix cache."""
    prefix_cache_hits: int
    """Tokens so far that were found there."""


class Backend(Protocol):
    """An engine with its model, tokenizer and profiles."""

    @property
    def model(self) -> ModelCard:
        """The model being served."""
        ...

    @property
    def profiles(self) -> ProfileRegistry:
        """All profiles by name, usable or not; they change while the server runs."""
        ...

    @property
    def tokenizer(self) -> TokenizerService:
        """The model's tokenizer."""
        ...

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why this engine cannot apply ``profile`` to its model, or None if it can."""
        ...

    def generate(
        self, requests: Sequence[GenerationRequest], client: str | None = None, *, admitted: bool = False
    ) -> BatchOutput:
        """Run ``requests`` in one batch and yield ``(index, chunk)`` pairs until all of them have finished.

        The queue is fair over ``client``, the sender of the request; without one it is fair over calls. ``admitted``
        sequences belong to a request that the queue has had room for before, and are not refused for want of it.
        The API has checked that sequences fit the context and that the engine does not refuse the profiles. Closing the
        generator cancels the requests that are still running.

        Raises:
            Overloaded: the queue is full.
            RequestError: a grammar is not valid, or is too large or complex.
            EngineError: the engine failed, or was stopped before the requests finished.
        """
        ...

    def stats(self) -> EngineStats:
        """Return the engine's state; may be called from any thread."""
        ...

    def failure(self) -> str | None:
        """Return why the engine can run nothing any more, None as long as it can; may be called from any thread."""
        ...

    async def start(self) -> None:
        """Begin to run requests."""
        ...

    async def close(self) -> None:
        """Stop the engine; requests that are still running are cancelled."""
        ...
