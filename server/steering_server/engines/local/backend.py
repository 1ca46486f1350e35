"""The backend that runs the model in this process, on this project's own engine."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.event_loop_bridge import EventLoopBridge
from steering_server.engines.local.grammars.compiling import GrammarCompiler
from steering_server.errors import EngineError
from steering_server.generation.backend import EngineStats, ModelCard
from steering_server.generation.registry import ProfileRegistry
from steering_server.generation.requests import Chunk, GenerationRequest
from steering_server.generation.tokenizer import TokenizerService
from steering_server.limits import EngineLimits

_CHARACTERS_PER_TOKEN = 64
"""More than the tokens of any text have on average; a text that needs more does not fit the context."""

_Report = tuple[int, Chunk | EngineError]


class LocalBackend:
    """A loaded model, its profiles, and the engine that runs them."""

    def __init__(
        self,
        loaded: LoadedModel,
        profiles: ProfileRegistry,
        limits: EngineLimits,
        *,
        served_name: str | None = None,
    ) -> None:
        """Put an engine on ``loaded``; ``profiles`` have been checked against it.

        Raises:
            ConfigError: the engine cannot run this model within these limits, or there is not enough memory.
        """
        self._profiles = profiles
        self._anatomy = loaded.anatomy
        self._engine = Engine(loaded, limits)
        self._model = ModelCard(
            name=served_name or loaded.name,
            created=int(time.time()),
            context_length=self._engine.max_length,
            dtype=loaded.dtype_name,
            identity=loaded.identity,
            batch_invariance=self._engine.batch_invariance,
        )
        self._tokenizer = TokenizerService(
            loaded.tokenizer,
            self._engine.vocabulary,
            self._model.name,
            max_characters=_CHARACTERS_PER_TOKEN * self._engine.max_length,
        )
        self._grammars = GrammarCompiler(
            self._engine.vocabulary, self._model.identity.vocab_size, self._engine.end_tokens
        )
        self._bridge: EventLoopBridge[_Report] | None = None

    @property
    def model(self) -> ModelCard:
        """The model being served."""
        return self._model

    @property
    def profiles(self) -> ProfileRegistry:
        """All profiles by name, usable or not; they change while the server runs."""
        return self._profiles

    @property
    def tokenizer(self) -> TokenizerService:
        """The model's tokenizer."""
        return self._tokenizer

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why this engine cannot apply ``profile`` to its model, or None if it can."""
        return self._anatomy.refuses(profile)

    async def generate(
        self, requests: Sequence[GenerationRequest], client: str | None = None, *, admitted: bool = False
    ) -> AsyncGenerator[tuple[int, Chunk], None]:
        """Run ``requests`` in one batch and yield ``(index, chunk)`` pairs until all of them have finished.

        The queue is fair over ``client``, or over calls where that is None; it has room for ``admitted`` ones even if
        it is full. Closing the generator cancels the requests that are still running.

        Raises:
            Overloaded: the queue is full.
            RequestError: a grammar is not valid, or is too large or complex.
            EngineError: the engine failed, or was stopped before the requests finished.
        """
        matchers = await self._grammars.matchers([request.sampling for request in requests])
        loop = asyncio.get_running_loop()
        if self._bridge is None or self._bridge.loop is not loop:
            self._bridge = EventLoopBridge(loop)
        bridge = self._bridge
        reports: asyncio.Queue[_Report] = asyncio.Queue()

        def emit(index: int, report: Chunk | EngineError) -> None:
            bridge.put(reports, (index, report))

        group = self._engine.submit(requests, emit, client, matchers, admitted=admitted)
        unfinished = len(requests)
        try:
            while unfinished:
                index, report = await reports.get()
                if isinstance(report, EngineError):
                    raise report
                unfinished -= report.finish_reason is not None
                yield index, report
        finally:
            if unfinished:
                self._engine.cancel(group)

    def stats(self) -> EngineStats:
        """Return the engine's state; may be called from any thread."""
        return self._engine.stats()

    def failure(self) -> str | None:
        """Return why the engine can run nothing any more, None as long as it can."""
        return self._engine.failure()

    async def start(self) -> None:
        """Begin to run requests."""
        self._engine.start()

    async def close(self) -> None:
        """Stop the engine; requests that are still running are cancelled."""
        await asyncio.to_thread(self._grammars.close)
        await asyncio.to_thread(self._engine.close)
