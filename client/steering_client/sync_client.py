# Generated from async_client.py by client/generate_sync.py; change that one.
"""A client of the steering server."""

from collections.abc import Generator, Mapping, Sequence
from time import sleep
from typing import Any, Self, Unpack

import httpx
from httpx_sse import EventSource

from steering_client import joining, protocol
from steering_client.comparison import Comparison
from steering_client.errors import SteeringClientError, StreamInterrupted
from steering_client.protocol import (
    AnswerT,
    Arm,
    ChatOptions,
    ComparisonOptions,
    CompletionOptions,
    MessageParam,
    Prompt,
)
from steering_client.retrying import Retries, checked_retries
from steering_client.sync_experiments import Experiments
from steering_client.sync_stream import Stream
from steering_client.types import (
    ChatChunk,
    ChatCompletion,
    Completion,
    CompletionChunk,
    Health,
    Model,
    ModelList,
    Profile,
    ProfileChange,
    ProfileList,
    Readiness,
)


class SteeringClient:
    """A client of the steering server, with connection pooling.

    Every method, and the constructor, raises :class:`~steering_client.SteeringClientError` and no error of httpx.
    Requests are sent again, after growing pauses or those that the server asks for, when it is busy (429) or not
    available (503), or when the connection breaks before an answer; no other failure is retried.

    Args:
        base_url: URL of the server, with or without ``/v1``.
        api_key: Sent as a bearer token, for a proxy that asks for one.
        timeout: Seconds to wait for a connection, and for each part of an answer; None waits without limit.
        max_retries: Number of times that a request is sent again.
        max_connections: Number of connections at once; further requests wait for one, without a limit on the time.
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
        max_retries: int = 2,
        max_connections: int = 256,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        root, headers = protocol.root(base_url), protocol.headers(api_key)
        self._max_retries = checked_retries(max_retries)
        with protocol.opening():
            self._http = httpx.Client(
                base_url=root,
                headers=headers,
                timeout=protocol.checked_timeout(timeout),
                limits=protocol.checked_limits(max_connections),
                transport=transport,
            )
        self.experiments = Experiments(self)
        """The experiments of the server."""

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
        left_out: Sequence[str] = (),
        **options: Unpack[CompletionOptions],
    ) -> Completion:
        """Complete a prompt, steered by ``profile`` if given.

        >>> answer = client.complete("print(str(1", profile="heads", left_out=["L0H1"], max_tokens=1)
        >>> answer.steering.effective.heads, answer.steering.profiles[0].left_out
        (2, ('L0H1',))

        Args:
            prompt: A text, tokens, or several of either.
            profile: Name of a profile, or several.
            strength: Strength of the profiles; 1 if not given.
            left_out: Components to leave out of the profiles, such as ``L11H2`` or ``final_layer``.
            options: Other fields of the request.
        """
        body = protocol.completion_body(prompt, profile, strength, left_out, **options)
        return self._post("/v1/completions", body, Completion)

    def stream(
        self,
        prompt: Prompt,
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        left_out: Sequence[str] = (),
        **options: Unpack[CompletionOptions],
    ) -> Stream[CompletionChunk, Completion]:
        """Complete a prompt; the stream's chunks come as they are generated.

        >>> stream = client.stream("print(str(1", max_tokens=8, temperature=0.0)
        >>> pieces = [chunk.text for chunk in stream]
        >>> answer = stream.final()
        >>> answer.text == "".join(pieces), answer.usage.completion_tokens
        (True, 8)
        """
        body = protocol.completion_body(prompt, profile, strength, left_out, **options)
        return Stream(self._events("/v1/completions", body, CompletionChunk), joining.completion)

    def chat(
        self,
        messages: Sequence[MessageParam],
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        left_out: Sequence[str] = (),
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion:
        """Answer a conversation, steered by ``profile`` without the components ``left_out`` if given."""
        body = protocol.chat_body(messages, profile, strength, left_out, **options)
        return self._post("/v1/chat/completions", body, ChatCompletion)

    def stream_chat(
        self,
        messages: Sequence[MessageParam],
        *,
        profile: str | Sequence[str] | None = None,
        strength: float | None = None,
        left_out: Sequence[str] = (),
        **options: Unpack[ChatOptions],
    ) -> Stream[ChatChunk, ChatCompletion]:
        """Answer a conversation; the stream's chunks come as they are generated.

        >>> with client.stream_chat([{"role": "user", "content": "hello"}], max_tokens=4) as stream:
        ...     answer = stream.final()
        >>> answer.choices[0].finish_reason
        'length'
        """
        body = protocol.chat_body(messages, profile, strength, left_out, **options)
        return Stream(self._events("/v1/chat/completions", body, ChatChunk), joining.chat_completion)

    def compare(
        self, prompt: Prompt, arms: Sequence[Arm] = ("baseline", "parentheses"), **options: Unpack[ComparisonOptions]
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

    def put_profile(
        self,
        name: str,
        profile: Mapping[str, Any] | bytes,
        *,
        tensors: bytes | None = None,
        if_hash: str | None = None,
        only_new: bool = False,
    ) -> ProfileChange:
        """Add a profile to the server, or replace the one of this name. Running requests keep their version.

        >>> heads = client.profile("heads")
        >>> other = heads.profile | {"name": "other", "heads": [{"layer": 0, "head": 1, "scale": 1.5}]}
        >>> change = client.put_profile("other", other, only_new=True)
        >>> change.profile.summary
        '1 heads x 1.5'
        >>> answer = client.complete("print(str(1", profile="other")
        >>> answer.steering.content_hash == change.content_hash
        True

        Args:
            name: The profile's name.
            profile: The content of its JSON file, as bytes or as a mapping.
            tensors: The content of its safetensors file, if it has one.
            if_hash: Content hash of the version to replace.
            only_new: Whether no other profile of this name may be replaced.

        Raises:
            BadRequest: The profile is invalid; the message names the field.
            Conflict: It does not fit the model, or the server cannot write it.
            PreconditionFailed: The version on the server is not that of ``if_hash``, or there is one with ``only_new``.
        """
        body = protocol.profile_content(profile, tensors)
        return self._change("PUT", protocol.profile_path(name), protocol.conditions(if_hash, only_new=only_new), body)

    def validate_profile(
        self, name: str, profile: Mapping[str, Any] | bytes, *, tensors: bytes | None = None
    ) -> ProfileChange:
        """Check what :meth:`put_profile` would do, and change nothing. It raises the same errors.

        >>> other["heads"] = [{"layer": 0, "head": 1, "scale": "much"}]
        >>> client.validate_profile("other", other)
        Traceback (most recent call last):
        steering_client.errors.BadRequest: body: heads.0.scale: Input should be a valid number (given: 'much')
        """
        body = protocol.profile_content(profile, tensors)
        return self._change("POST", protocol.profile_path(name, "validate"), {}, body)

    def delete_profile(self, name: str, *, if_hash: str | None = None) -> ProfileChange:
        """Delete a profile of the operator's own.

        >>> change = client.delete_profile("other")
        >>> change.profile is None
        True

        Raises:
            Conflict: It is a shipped one, which can only be disabled, or the server's default.
            PreconditionFailed: The version on the server is not that of ``if_hash``.
        """
        return self._change("DELETE", protocol.profile_path(name), protocol.conditions(if_hash), {})

    def disable_profile(self, name: str, *, if_hash: str | None = None) -> ProfileChange:
        """Make the server refuse requests that use this profile, until it is enabled.

        >>> change = client.disable_profile("heads")
        >>> change.profile.enabled
        False
        """
        return self._change("POST", protocol.profile_path(name, "disable"), protocol.conditions(if_hash), {})

    def enable_profile(self, name: str, *, if_hash: str | None = None) -> ProfileChange:
        """Let requests use this profile again.

        >>> change = client.enable_profile("heads")
        >>> change.profile.enabled
        True
        """
        return self._change("POST", protocol.profile_path(name, "enable"), protocol.conditions(if_hash), {})

    def get(self, path: str, shape: type[AnswerT]) -> AnswerT:
        """Get any route of OpenAI's API, also of a server that is not a steering server, and read it as ``shape``.

        Raises:
            UnexpectedResponse: The answer is not a valid ``shape``.
        """
        return self._get(path, shape)

    def post(self, path: str, body: dict[str, Any], shape: type[AnswerT]) -> AnswerT:
        """Send any request of OpenAI's API, also to a server that is not a steering server, and read the answer.

        >>> import pydantic
        >>> class Tokens(pydantic.BaseModel):
        ...     count: int
        >>> answer = client.post("/tokenize", {"prompt": "print(str(1"}, Tokens)
        >>> answer.count > 0
        True

        Args:
            path: Path of the route, such as ``/v1/chat/completions``.
            body: The request's fields. Sent again, it must do no harm.
            shape: What the answer is parsed as.

        Raises:
            UnexpectedResponse: The answer is not a valid ``shape``.
        """
        return self._post(path, body, shape)

    def health(self) -> Health:
        """Check that the server is alive; its model may still be loading."""
        return self._get("/health", Health, retry=False)

    def ready(self) -> Readiness:
        """Check that the server accepts requests.

        Raises:
            ServerFailure: It does not (status 503).
        """
        return self._get("/ready", Readiness, retry=False)

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, shape: type[AnswerT], *, repeatable: bool = False
    ) -> AnswerT:
        """Send a request that may change the server; ``repeatable`` is whether it does so only once if sent twice."""
        retries = Retries(self._max_retries, repeatable=repeatable or method == "GET")
        content = {} if body is None else {"content": protocol.encoded(body), "headers": protocol.JSON}
        return self._request(retries, shape, method, path, **content)

    def _get(self, path: str, shape: type[AnswerT], *, retry: bool = True) -> AnswerT:
        retries = Retries(self._max_retries if retry else 0)
        return self._request(retries, shape, "GET", path)

    def _post(self, path: str, body: dict[str, Any], shape: type[AnswerT]) -> AnswerT:
        return self._send("POST", path, body, shape, repeatable=True)

    def _change(
        self, method: str, path: str, conditions: dict[str, str], body: protocol.ProfileContent
    ) -> ProfileChange:
        headers = conditions | protocol.JSON if "content" in body else conditions
        # Made twice, a change could fail the second time because it was made the first time.
        retries = Retries(self._max_retries, repeatable=False)
        return self._request(retries, ProfileChange, method, path, headers=headers, **body)

    def _request(self, retries: Retries, shape: type[AnswerT], method: str, path: str, **arguments: Any) -> AnswerT:
        while True:
            try:
                with protocol.translated(self._http):
                    return protocol.read_answer(self._http.request(method, path, **arguments), shape)
            except SteeringClientError as error:
                sleep(retries.pause_after(error))

    def _events(self, path: str, body: dict[str, Any], shape: type[AnswerT]) -> Generator[AnswerT, None]:
        content = protocol.encoded(protocol.streamed(body))
        retries = Retries(self._max_retries)
        while True:
            try:
                with protocol.translated(self._http):
                    with self._http.stream("POST", path, content=content, headers=protocol.JSON) as response:
                        if not response.is_success:
                            response.read()
                            protocol.raise_for_error(response)
                        for event in EventSource(response).iter_sse():
                            if event.data == protocol.DONE:
                                return
                            if event.data:
                                retries.stop()
                                yield protocol.read_event(event.data, shape)
                raise StreamInterrupted("the stream ended before the server sent [DONE]")
            except SteeringClientError as error:
                sleep(retries.pause_after(error))
