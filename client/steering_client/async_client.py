"""The async client."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, Unpack

import httpx
from pydantic import BaseModel

from steering_client import protocol
from steering_client.comparison import Comparison
from steering_client.errors import StreamInterrupted
from steering_client.events import EventDecoder
from steering_client.protocol import Arm, ChatOptions, CompletionOptions, MessageParam, Prompt
from steering_client.types import (
    ChatChunk,
    ChatCompletion,
    Completion,
    CompletionChunk,
    Health,
    Model,
    ModelList,
    Profile,
    ProfileList,
    Readiness,
)

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class AsyncSteeringClient:
    """Talks to a steering server from asynchronous code.

    Every method raises :class:`~steering_client.SteeringClientError` and nothing of httpx's. So does making one: of a
    base URL, with or without ``/v1``, a key, a timeout (in seconds; None for as long as it takes), or variables for
    proxies, that cannot be used.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float | None = 600.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        root, headers = protocol.root(base_url), protocol.headers(api_key)
        seconds = protocol.checked_timeout(timeout)
        with protocol.opening():
            self._http = httpx.AsyncClient(base_url=root, headers=headers, timeout=seconds, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def complete(
        self,
        prompt: Prompt,
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion:
        """Continue a prompt, steered by ``profile`` if one is named."""
        body = protocol.completion_body(prompt, profile, strength, **options)
        return await self._post("/v1/completions", body, Completion)

    async def stream(
        self,
        prompt: Prompt,
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> AsyncIterator[CompletionChunk]:
        """Continue a prompt and yield its text as it comes. Closing the iterator stops the server's work on it."""
        body = protocol.completion_body(prompt, profile, strength, **options)
        async with aclosing(self._events("/v1/completions", body, CompletionChunk)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def chat(
        self,
        messages: Sequence[MessageParam],
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion:
        """Answer a conversation, steered by ``profile`` if one is named."""
        body = protocol.chat_body(messages, profile, strength, **options)
        return await self._post("/v1/chat/completions", body, ChatCompletion)

    async def stream_chat(
        self,
        messages: Sequence[MessageParam],
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncIterator[ChatChunk]:
        """Answer a conversation and yield the answer as it comes."""
        body = protocol.chat_body(messages, profile, strength, **options)
        async with aclosing(self._events("/v1/chat/completions", body, ChatChunk)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def compare(
        self, prompt: Prompt, arms: Sequence[Arm] = ("baseline", "parentheses"), **options: Unpack[CompletionOptions]
    ) -> Comparison:
        """Run a prompt (or several) under several arms in one batch and tell where they part."""
        body = protocol.comparison_body(prompt, arms, **options)
        return Comparison(await self._post("/v1/completions", body, Completion))

    async def models(self) -> tuple[Model, ...]:
        """List the names that requests can carry as ``model``."""
        return (await self._get("/v1/models", ModelList)).data

    async def profiles(self) -> tuple[Profile, ...]:
        """List the server's profiles."""
        return (await self._get("/v1/profiles", ProfileList)).data

    async def profile(self, name: str) -> Profile:
        """Return one profile with its whole content."""
        return await self._get(protocol.profile_path(name), Profile)

    async def health(self) -> Health:
        """See that the server is alive; its model may still be loading."""
        return await self._get("/health", Health)

    async def ready(self) -> Readiness:
        """See that the server takes requests; a ``ServerFailure`` of status 503 says that it does not."""
        return await self._get("/ready", Readiness)

    async def _get(self, path: str, shape: type[AnswerT]) -> AnswerT:
        with protocol.translated(self._http):
            return protocol.read_answer(await self._http.get(path), shape)

    async def _post(self, path: str, body: dict[str, Any], shape: type[AnswerT]) -> AnswerT:
        content = protocol.encoded(body)
        with protocol.translated(self._http):
            return protocol.read_answer(await self._http.post(path, content=content, headers=protocol.JSON), shape)

    async def _events(self, path: str, body: dict[str, Any], shape: type[AnswerT]) -> AsyncGenerator[AnswerT, None]:
        content = protocol.encoded(body | {"stream": True})
        decoder = EventDecoder()
        with protocol.translated(self._http):
            async with self._http.stream("POST", path, content=content, headers=protocol.JSON) as response:
                if not response.is_success:
                    await response.aread()
                    protocol.raise_for_error(response)
                async for piece in response.aiter_bytes():
                    for data in decoder.feed(piece):
                        if data == protocol.DONE:
                            return
                        yield protocol.read_event(data, shape)
        raise StreamInterrupted("the stream ended before the server said that it was done")
