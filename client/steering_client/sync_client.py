# Generated from async_client.py by client/generate_sync.py; change that one.
"""A client of the steering server."""

from collections.abc import Generator, Sequence
from contextlib import closing
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


class SteeringClient:
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        root, headers = protocol.root(base_url), protocol.headers(api_key)
        seconds = protocol.checked_timeout(timeout)
        with protocol.opening():
            self._http = httpx.Client(base_url=root, headers=headers, timeout=seconds, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def complete(
        self,
        prompt: Prompt,
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion:
        """Complete a prompt, steered by ``profile`` if given."""
        body = protocol.completion_body(prompt, profile, strength, **options)
        return self._post("/v1/completions", body, Completion)

    def stream(
        self,
        prompt: Prompt,
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Generator[CompletionChunk, None]:
        """Complete a prompt and yield the text as it is generated. Closing the generator cancels the request."""
        body = protocol.completion_body(prompt, profile, strength, **options)
        with closing(self._events("/v1/completions", body, CompletionChunk)) as chunks:
            for chunk in chunks:
                yield chunk

    def chat(
        self,
        messages: Sequence[MessageParam],
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion:
        """Answer a conversation, steered by ``profile`` if given."""
        body = protocol.chat_body(messages, profile, strength, **options)
        return self._post("/v1/chat/completions", body, ChatCompletion)

    def stream_chat(
        self,
        messages: Sequence[MessageParam],
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> Generator[ChatChunk, None]:
        """Answer a conversation and yield the text as it is generated. Closing the generator cancels the request."""
        body = protocol.chat_body(messages, profile, strength, **options)
        with closing(self._events("/v1/chat/completions", body, ChatChunk)) as chunks:
            for chunk in chunks:
                yield chunk

    def compare(
        self, prompt: Prompt, arms: Sequence[Arm] = ("baseline", "parentheses"), **options: Unpack[CompletionOptions]
    ) -> Comparison:
        """Complete a prompt (or several) under several arms in one batch and compare the completions."""
        body = protocol.comparison_body(prompt, arms, **options)
        return Comparison(self._post("/v1/completions", body, Completion))

    def models(self) -> tuple[Model, ...]:
        """List the names that ``model`` accepts."""
        answer = self._get("/v1/models", ModelList)
        return answer.data

    def profiles(self) -> tuple[Profile, ...]:
        """List the profiles of the server."""
        answer = self._get("/v1/profiles", ProfileList)
        return answer.data

    def profile(self, name: str) -> Profile:
        """Return one profile with its whole content."""
        return self._get(protocol.profile_path(name), Profile)

    def health(self) -> Health:
        """Check that the server is alive; its model may still be loading."""
        return self._get("/health", Health)

    def ready(self) -> Readiness:
        """Check that the server accepts requests.

        Raises:
            ServerFailure: It does not (status 503).
        """
        return self._get("/ready", Readiness)

    def _get(self, path: str, shape: type[AnswerT]) -> AnswerT:
        with protocol.translated(self._http):
            return protocol.read_answer(self._http.get(path), shape)

    def _post(self, path: str, body: dict[str, Any], shape: type[AnswerT]) -> AnswerT:
        content = protocol.encoded(body)
        with protocol.translated(self._http):
            return protocol.read_answer(self._http.post(path, content=content, headers=protocol.JSON), shape)

    def _events(self, path: str, body: dict[str, Any], shape: type[AnswerT]) -> Generator[AnswerT, None]:
        content = protocol.encoded(body | {"stream": True})
        with protocol.translated(self._http):
            with self._http.stream("POST", path, content=content, headers=protocol.JSON) as response:
                if not response.is_success:
                    response.read()
                    protocol.raise_for_error(response)
                for event in EventSource(response).iter_sse():
                    if event.data == protocol.DONE:
                        return
                    if event.data:
                        yield protocol.read_event(event.data, shape)
        raise StreamInterrupted("the stream ended before the server sent [DONE]")
