"""The backend that runs the model in vLLM, whose engine core and workers are processes of their own."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any
from uuid import uuid4

from steering_profiles.schema import Profile
from steering_profiles.tokenization import Vocabulary
from steering_server.engines.local.grammars.compiling import GrammarCompiler
from steering_server.engines.local.grammars.matching import Matcher
from steering_server.engines.vllm.applicable import Applicable
from steering_server.engines.vllm.counting import Counted
from steering_server.engines.vllm.sampling import prompt_logprobs, token_logprob, vllm_sampling
from steering_server.errors import EngineError, EngineStopped, Overloaded, RequestError
from steering_server.generation.backend import EngineStats, ModelCard
from steering_server.generation.detokenizer import TextStream
from steering_server.generation.registry import ProfileRegistry
from steering_server.generation.requests import Chunk, FinishReason, GenerationRequest
from steering_server.generation.tokenizer import TokenizerService
from steering_server.limits import EngineLimits

_RETRY_AFTER = 1.0  # seconds; vLLM does not tell how long its queue takes

_Report = tuple[int, Chunk | Exception]


class VllmBackend:
    """A running vLLM with the plugin, and the profiles that it was started with."""

    def __init__(
        self,
        engine: Any,
        model: ModelCard,
        tokenizer: TokenizerService,
        vocabulary: Vocabulary,
        profiles: ProfileRegistry,
        applicable: Applicable,
        counted: Counted,
        limits: EngineLimits,
        grammars: GrammarCompiler,
    ) -> None:
        """Use ``engine``, an ``AsyncLLM``; ``applicable`` are the profiles that its workers have.

        vLLM masks what a grammar does not allow. ``grammars`` compiles it within limits first, and follows each text.
        """
        self._engine = engine
        self._model = model
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._profiles = profiles
        self._applicable = applicable
        self._counted = counted
        self._limits = limits
        self._grammars = grammars
        self._unfinished = 0
        self._closed = False

    @property
    def model(self) -> ModelCard:
        """The model being served."""
        return self._model

    @property
    def profiles(self) -> ProfileRegistry:
        """All profiles by name, usable or not."""
        return self._profiles

    @property
    def tokenizer(self) -> TokenizerService:
        """The model's tokenizer."""
        return self._tokenizer

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why this engine cannot apply ``profile`` to its model, or None if it can."""
        return self._applicable.refuses(profile)

    async def generate(
        self, requests: Sequence[GenerationRequest], client: str | None = None, *, admitted: bool = False
    ) -> AsyncGenerator[tuple[int, Chunk], None]:
        """Run ``requests`` at the same time and yield ``(index, chunk)`` pairs until all of them have finished.

        vLLM's queue is fair over nothing: requests run in the order in which they come. It has room for ``admitted``
        ones even if it is full. Closing the generator cancels the requests that are still running.

        Raises:
            Overloaded: the queue is full.
            RequestError: vLLM cannot do what a request asks for, or its grammar is not valid, or too large or complex.
            EngineError: the engine failed, or was stopped before the requests finished.
        """
        asked = [vllm_sampling(request) for request in requests]
        if self._closed:
            raise EngineStopped
        if not admitted:
            self._require_room(len(requests))
        self._unfinished += len(requests)
        running: list[asyncio.Task[None]] = []
        try:
            matchers = await self._grammars.matchers([request.sampling for request in requests])
            reports: asyncio.Queue[_Report] = asyncio.Queue()
            running += [
                asyncio.create_task(self._run(index, request, sampling, matcher, reports))
                for index, (request, sampling, matcher) in enumerate(zip(requests, asked, matchers, strict=True))
            ]
            unfinished = len(requests)
            while unfinished:
                index, report = await reports.get()
                if isinstance(report, Exception):
                    raise report
                unfinished -= report.finish_reason is not None
                yield index, report
        finally:
            self._unfinished -= len(requests)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def stats(self) -> EngineStats:
        """Return the engine's state; may be called from any thread."""
        return self._counted.stats()

    def failure(self) -> str | None:
        """Return why vLLM can run nothing any more, None as long as it can."""
        return "vLLM's engine has ended; see its log" if self._engine.errored and not self._closed else None

    async def start(self) -> None:
        """Do nothing: vLLM runs requests as they come."""

    async def close(self) -> None:
        """Stop vLLM; requests that are still running are cancelled."""
        self._closed = True
        await asyncio.to_thread(self._grammars.close)
        await asyncio.to_thread(self._engine.shutdown)

    def _require_room(self, new: int) -> None:
        whole = self._limits.max_num_seqs + self._limits.max_queue
        if new > whole:
            raise Overloaded(
                f"this request has {new} sequences, and the queue holds {whole}, running ones included; send fewer",
                retry_after=None,
            )
        if self._unfinished + new > whole:
            raise Overloaded(
                f"the queue is full: {self._unfinished} sequences run or wait, and this request would add {new}",
                retry_after=_RETRY_AFTER,
            )

    async def _run(
        self,
        index: int,
        request: GenerationRequest,
        sampling: Any,
        matcher: Matcher | None,
        reports: "asyncio.Queue[_Report]",
    ) -> None:
        """Run one sequence and report its chunks, or the error that ended it."""
        try:
            async for chunk in self._chunks(request, sampling, matcher):
                reports.put_nowait((index, chunk))
        except (EngineError, RequestError) as exc:
            reports.put_nowait((index, exc))
        except Exception as exc:
            reports.put_nowait((index, self._error(exc)))

    async def _chunks(
        self, request: GenerationRequest, sampling: Any, matcher: Matcher | None
    ) -> AsyncGenerator[Chunk, None]:
        wanted = request.sampling
        text = TextStream(
            self._vocabulary, request.prompt, wanted.stop, min_tokens=wanted.min_tokens, echoes=wanted.echoes
        )
        request.timeline.queued_at = time.monotonic()
        prompt = {"prompt_token_ids": list(request.prompt)}
        async with aclosing(self._engine.generate(prompt, sampling, uuid4().hex)) as outputs:
            async for output in outputs:
                now = time.monotonic()
                if request.timeline.started_at is None:
                    request.timeline.started_at = _scheduled_at(output) or now
                    if wanted.prompt_logprobs_from is not None:
                        yield Chunk(prompt_logprobs=prompt_logprobs(request.prompt, output.prompt_logprobs, wanted))
                if wanted.max_tokens == 0:
                    yield text.finish("length")
                    return
                ended = False
                for chunk in _read(text, output.outputs[0], wanted.logprobs, matcher):
                    request.timeline.token_at.extend([now] * len(chunk.tokens))
                    yield chunk
                    ended = ended or chunk.finish_reason is not None
                if ended:
                    return
        raise EngineError("vLLM ended a sequence without a reason")

    def _error(self, exc: Exception) -> Exception:
        """Return what an exception of vLLM means."""
        from vllm.exceptions import VLLMClientError

        if isinstance(exc, VLLMClientError | ValueError):
            return RequestError(str(exc))
        if self._closed:
            return EngineStopped()
        return EngineError(f"vLLM failed: {type(exc).__name__}: {exc}")


def _read(text: TextStream, completion: Any, logprobs: int | None, matcher: Matcher | None) -> list[Chunk]:
    """Return the chunks that vLLM's new tokens make; the last has a finish reason if the sequence has ended.

    Raises:
        EngineError: a token is not allowed by the grammar that ``matcher`` follows, or it is too complex to go on.
    """
    reason = _finish_reason(completion.finish_reason)
    chunks: list[Chunk] = []
    tokens = list(completion.token_ids)
    for place, token in enumerate(tokens):
        found = None
        if logprobs is not None and completion.logprobs is not None:
            found = token_logprob(token, completion.logprobs[place], logprobs)
        is_last = place == len(tokens) - 1
        ends = is_last and reason == "stop"
        chunk = text.end(token, found) if ends else text.push(token, found)
        chunks.append(chunk)
        if matcher is not None:
            _follow(matcher, token, ends=ends)
        if chunk.finish_reason is not None:
            return chunks
        if matcher is not None and matcher.is_complete:
            chunks.append(text.finish("stop"))
            return chunks
    if reason is not None:
        chunks.append(text.finish(reason))
    return chunks


def _follow(matcher: Matcher, token: int, *, ends: bool) -> None:
    """Add ``token`` to the text that follows a grammar; one that ``ends`` the text adds nothing to it.

    vLLM lets a text end where it cannot follow the grammar any more. That must not look like an end that was allowed.
    """
    if not matcher.allowed[token]:
        raise EngineError("the text does not follow the grammar or schema: vLLM could not enforce it")
    if not ends:
        matcher.push(token)


def _finish_reason(given: str | None) -> FinishReason | None:
    if given is None or given == "length":
        return given  # type: ignore[return-value]
    if given == "stop":
        return "stop"
    raise EngineError(f"vLLM ended a sequence: {given}")


def _scheduled_at(output: Any) -> float | None:
    with suppress(AttributeError):
        return float(output.metrics.scheduled_ts) or None
    return None
