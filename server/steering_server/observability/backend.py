"""A backend whose sequences are observed."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from steering_profiles.schema import Profile
from steering_server.generation.backend import Backend, EngineStats, ModelCard
from steering_server.generation.registry import ProfileRegistry
from steering_server.generation.requests import Chunk, GenerationRequest
from steering_server.generation.tokenizer import TokenizerService
from steering_server.observability.sequence import Ending, Watch


class ObservedBackend:
    """Does what ``backend`` does, while every one of ``watches`` observes every sequence."""

    def __init__(self, backend: Backend, watches: Sequence[Watch]) -> None:
        self._backend = backend
        self._watches = tuple(watches)

    @property
    def model(self) -> ModelCard:
        """The model being served."""
        return self._backend.model

    @property
    def profiles(self) -> ProfileRegistry:
        """All profiles of the catalogue by name, usable or not."""
        return self._backend.profiles

    @property
    def tokenizer(self) -> TokenizerService:
        """The model's tokenizer."""
        return self._backend.tokenizer

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why the engine cannot apply ``profile`` to its model, or None if it can."""
        return self._backend.refuses(profile)

    def stats(self) -> EngineStats:
        """Return the engine's state; may be called from any thread."""
        return self._backend.stats()

    def failure(self) -> str | None:
        """Return why the engine can run nothing any more, None as long as it can."""
        return self._backend.failure()

    async def generate(
        self, requests: Sequence[GenerationRequest], client: str | None = None, *, admitted: bool = False
    ) -> AsyncGenerator[tuple[int, Chunk], None]:
        """Run ``requests`` as :meth:`.Backend.generate` does."""
        observed = {index: [watch(one) for watch in self._watches] for index, one in enumerate(requests)}
        ending: Ending = "abort"
        try:
            async with aclosing(self._backend.generate(requests, client, admitted=admitted)) as output:
                async for index, chunk in output:
                    if chunk.finish_reason is None:
                        for observer in observed[index]:
                            observer.read()
                    else:
                        for observer in observed.pop(index):
                            observer.end(chunk.finish_reason, time.monotonic())
                    yield index, chunk
        except Exception:
            ending = "error"
            raise
        finally:
            for observers in observed.values():
                for observer in observers:
                    observer.end(ending, time.monotonic())

    async def start(self) -> None:
        """Begin to run requests."""
        await self._backend.start()

    async def close(self) -> None:
        """Stop the engine; requests that are still running are cancelled."""
        await self._backend.close()
