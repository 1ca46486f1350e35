"""A client of the steering server."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, Unpack

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel

from steering_client import protocol
from steering_client.comparison import Comparison
from steering_client.errors import StreamInterrupted
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
    """A client of the steering server, with connection pooling.

    Every method, and the constructor, raises :class:`~steering_client.SteeringClientError` and no error of httpx.

    Args:
        base_url: URL of the server, with or without ``/v1``.
        api_key: Sent as a bearer token, for a proxy that asks for one.
        timeout: Seconds to wait for a connection, and for each part of an answer; None waits without limit.
        transport: The transport of httpx to use, for tests and applications in the same process.

    Raises:
        InvalidArgument: One of the arguments, or a proxy or certificate in the environment, cannot be used.
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
        """Close all connections."""
        await self._http.aclose()

    async def complete(
        self,
        prompt: Prompt,
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion:
        """Complete a prompt, steered by ``profile`` if given."""
        body = protocol.completion_body(prompt, profile, strength, **options)
        return await self._post("/v1/completions", body, Completion)

    async def stream(
        self,
        prompt: Prompt,
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> AsyncGenerator[CompletionChunk, None]:
        """Complete a prompt and yield the text as it is generated. Closing the generator cancels the request."""
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
        """Answer a conversation, steered by ``profile`` if given."""
        body = protocol.chat_body(messages, profile, strength, **options)
        return await self._post("/v1/chat/completions", body, ChatCompletion)

    async def stream_chat(
        self,
        messages: Sequence[MessageParam],
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncGenerator[ChatChunk, None]:
        """Answer a conversation and yield the text as it is generated. Closing the generator cancels the request."""
        body = protocol.chat_body(messages, profile, strength, **options)
        async with aclosing(self._events("/v1/chat/completions", body, ChatChunk)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def compare(
        self, prompt: Prompt, arms: Sequence[Arm] = ("baseline", "parentheses"), **options: Unpack[CompletionOptions]
    ) -> Comparison:
        """Complete a prompt (or several) under several arms in one batch and compare the completions."""
        body = protocol.comparison_body(prompt, arms, **options)
        return Comparison(await self._post("/v1/completions", body, Completion))

    async def models(self) -> tuple[Model, ...]:
        """List the names that ``model`` accepts."""
        answer = await self._get("/v1/models", ModelList)
        return answer.data

    async def profiles(self) -> tuple[Profile, ...]:
        """List the profiles of the server."""
        answer = await self._get("/v1/profiles", ProfileList)
        return answer.data

    async def profile(self, name: str) -> Profile:
        """Return one profile with its whole content."""
        return await self._get(protocol.profile_path(name), Profile)

    async def health(self) -> Health:
        """Check that the server is alive; its model may still be loading."""
        return await self._get("/health", Health)

    async def ready(self) -> Readiness:
        """Check that the server accepts requests.

        Raises:
            ServerFailure: It does not (status 503).
        """
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
        with protocol.translated(self._http):
            async with self._http.stream("POST", path, content=content, headers=protocol.JSON) as response:
                if not response.is_success:
                    await response.aread()
                    protocol.raise_for_error(response)
                async for event in EventSource(response).aiter_sse():
                    if event.data == protocol.DONE:
                        return
                    if event.data:
                        yield protocol.read_event(event.data, shape)
        raise StreamInterrupted("the stream ended before the server sent [DONE]")
