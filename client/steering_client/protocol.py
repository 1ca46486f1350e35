"""Requests and answers as data, without I/O: everything that the sync and the async client share."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from httpx_sse import SSEError
from pydantic import BaseModel, ValidationError

from steering_client.errors import (
    APIError,
    BadRequest,
    ClientClosed,
    Conflict,
    ConnectionFailed,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    RateLimited,
    ServerFailure,
    StreamInterrupted,
    Timeout,
    UnexpectedResponse,
)
from steering_client.types import ErrorResponse

DONE = "[DONE]"
JSON = {"Content-Type": "application/json"}
"""Headers of a request with a body."""

_VERSION = b"/v1"
_MAX_PORT = 65535
_SHOWN = 100  # characters of an invalid value in an error message

Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
Arm = str | Mapping[str, Any]
"""``baseline``, ``a``, ``a+b``, or ``{"profile": ..., "strength": ..., "except": [...], "name": ...}``."""


class MessageParam(TypedDict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    tool_call_id: NotRequired[str]


class SamplingOptions(TypedDict, total=False):
    """Sampling parameters; the server has a default for each."""

    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[str, float]
    min_tokens: int
    ignore_eos: bool
    n: int
    stop: str | Sequence[str]
    seed: int
    user: str
    experiment: str
    response_format: Mapping[str, Any]
    structured_outputs: Mapping[str, Any]
    stream_options: Mapping[str, bool]


class ComparisonOptions(SamplingOptions, total=False):
    """Options of comparisons of arms."""

    logprobs: int
    echo: bool


class CompletionOptions(ComparisonOptions, total=False):
    """Options of completions."""

    arms: Sequence[Arm]


class ChatOptions(SamplingOptions, total=False):
    """Options of chat completions."""

    max_completion_tokens: int
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    logprobs: bool
    top_logprobs: int
    add_generation_prompt: bool
    continue_final_message: bool
    arms: Sequence[Arm]


def completion_body(
    prompt: Prompt,
    profile: str | Sequence[str] | None,
    strength: float | None,
    left_out: Sequence[str],
    **options: Unpack[CompletionOptions],
) -> dict[str, Any]:
    """Return the body of a completion request."""
    return {"prompt": prompt, **options, **_steering(profile, strength, left_out)}


def chat_body(
    messages: Sequence[MessageParam],
    profile: str | Sequence[str] | None,
    strength: float | None,
    left_out: Sequence[str],
    **options: Unpack[ChatOptions],
) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"messages": list(messages), **options, **_steering(profile, strength, left_out)}


def comparison_body(prompt: Prompt, arms: Sequence[Arm], **options: Unpack[ComparisonOptions]) -> dict[str, Any]:
    """Return the body of a completion request with several arms."""
    return {"prompt": prompt, "arms": list(arms), **options}


def streamed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a request whose answer is streamed; the number of tokens is always asked for."""
    options = {**(body.get("stream_options") or {}), "include_usage": True}
    return {**body, "stream": True, "stream_options": options}


def root(base_url: str) -> httpx.URL:
    """Return the URL that all paths are relative to: ``base_url`` without ``/v1`` and slashes at its end.

    Raises:
        InvalidArgument: It is not an http or https URL of a server.
    """
    expected = "http://HOST:PORT or https://HOST:PORT, with or without /v1"
    refused = f"base URL is {base_url[:_SHOWN]!r}; expected is {expected}"
    try:
        url = httpx.URL(base_url)
        path = url.raw_path.rstrip(b"/").removesuffix(_VERSION).rstrip(b"/")
        # A URL escapes the % before the zone of a link-local address; the resolver expects it unescaped.
        root = url.copy_with(host=url.host.replace("%25", "%"), raw_path=path or b"/")
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise InvalidArgument(f"{refused} ({exc})") from exc
    is_server = url.scheme in ("http", "https") and url.host and (url.port or 0) <= _MAX_PORT
    if not is_server or "?" in base_url or "#" in base_url:
        raise InvalidArgument(refused)
    return root


def headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request.

    Raises:
        InvalidArgument: The key has a character that a header cannot hold. The message does not show the key.
    """
    for position, character in enumerate(api_key or "", start=1):
        if not "!" <= character <= "~":
            raise InvalidArgument(
                f"api_key has {character!a} at position {position}; allowed: printable ASCII without spaces"
            )
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def checked_timeout(timeout: float | None) -> httpx.Timeout:
    """Return ``timeout``, in seconds; None is no limit. There is none on the wait for a free connection.

    Raises:
        InvalidArgument: It is not a finite number above 0.
    """
    if timeout is not None and not 0 < timeout < math.inf:  # false for NaN too
        raise InvalidArgument(f"timeout is {timeout}; allowed: a finite number of seconds above 0, or None")
    return httpx.Timeout(timeout, pool=None)


def checked_limits(max_connections: int) -> httpx.Limits:
    """Return the limits of the connection pool.

    Raises:
        InvalidArgument: ``max_connections`` is not a whole number from 1 on.
    """
    if isinstance(max_connections, bool) or not isinstance(max_connections, int) or max_connections < 1:
        raise InvalidArgument(f"max_connections is {max_connections!r}; allowed: a whole number from 1 on")
    return httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)


def profile_path(name: str, action: str | None = None) -> str:
    """Return the path of the profile ``name``, or of an ``action`` on it, with all special characters escaped."""
    path = f"/v1/profiles/{quote(name, safe='', errors='replace')}"
    return path if action is None else f"{path}/{action}"


def experiment_path(name: str, action: str | None = None) -> str:
    """Return the path of the experiment ``name``, or of an ``action`` on it, with all special characters escaped."""
    path = f"/v1/experiments/{escaped(name)}"
    return path if action is None else f"{path}/{action}"


def escaped(text: str) -> str:
    """Return ``text`` as a part of a URL."""
    return quote(text, safe="", errors="replace")


class ProfileContent(TypedDict, total=False):
    """Body of a request that sends a profile, as arguments of httpx."""

    content: bytes
    files: Mapping[str, bytes]


def profile_content(profile: Mapping[str, Any] | bytes, tensors: bytes | None) -> ProfileContent:
    """Return the body for a profile, the content of its JSON file, and of its safetensors file if it has one.

    Raises:
        InvalidArgument: The profile has a value that JSON cannot represent.
    """
    content = profile if isinstance(profile, bytes) else encoded(profile)
    return {"content": content} if tensors is None else {"files": {"profile": content, "tensors": tensors}}


def conditions(if_hash: str | None, *, only_new: bool = False) -> dict[str, str]:
    """Return the headers by which a change is made only if the profile has this content hash, or does not exist.

    Raises:
        InvalidArgument: Both are asked for, or the hash cannot be sent in a header.
    """
    if only_new:
        if if_hash is not None:
            raise InvalidArgument(f"if_hash is {if_hash!a}, but only_new expects that there is no profile; use one")
        return {"If-None-Match": "*"}
    if if_hash is None:
        return {}
    if '"' in if_hash or not all("!" <= character <= "~" for character in if_hash):
        raise InvalidArgument(f"if_hash is {if_hash[:_SHOWN]!a}; allowed: a content hash, such as sha256:0a1b...")
    return {"If-Match": f'"{if_hash}"'}


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as JSON.

    Raises:
        InvalidArgument: It has a value that JSON cannot represent, such as NaN or a set.
    """
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgument(f"the request cannot be encoded as JSON: {exc}") from exc


AnswerT = TypeVar("AnswerT", bound=BaseModel)


def read_answer(response: httpx.Response, shape: type[AnswerT]) -> AnswerT:
    """Parse the body of ``response`` as a ``shape``.

    Raises:
        APIError: The server answered with an error.
        UnexpectedResponse: The body is not valid.
    """
    raise_for_error(response)
    return read_json(response.content, shape)


def read_json(content: str | bytes, shape: type[AnswerT]) -> AnswerT:
    """Parse JSON as a ``shape``.

    Raises:
        UnexpectedResponse: It is not valid.
    """
    try:
        return shape.model_validate_json(content)
    except ValidationError as exc:
        raise UnexpectedResponse(f"the answer is not a valid {shape.__name__}: {exc.errors()[0]['msg']}") from exc


def read_event(data: str, shape: type[AnswerT]) -> AnswerT:
    """Parse the data of an event as a ``shape``, a chunk of a stream.

    Raises:
        StreamInterrupted: The event is an error.
        UnexpectedResponse: It is neither a chunk nor an error.
    """
    try:
        return read_json(data, shape)
    except UnexpectedResponse:
        try:
            error = ErrorResponse.model_validate_json(data).error
        except ValidationError:
            pass
        else:
            raise StreamInterrupted(f"the server failed while streaming: {error.message}") from None
        raise


def raise_for_error(response: httpx.Response) -> None:
    """Raise the error of ``response``, whose body has been read, if it is one."""
    if response.is_success:
        return
    status = response.status_code
    try:
        body = ErrorResponse.model_validate_json(response.content).error
    except ValidationError as exc:
        raise UnexpectedResponse(
            f"{response.url} answered with status {status} and without an error object of a steering server"
        ) from exc
    kinds: dict[int, type[APIError]] = {404: NotFound, 409: Conflict, 412: PreconditionFailed, 429: RateLimited}
    kind = kinds.get(status, ServerFailure if status >= 500 else BadRequest)
    raise kind(
        body.message,
        status=status,
        type=body.type,
        param=body.param,
        code=body.code,
        retry_after=_seconds(response.headers.get("retry-after")),
    )


@contextmanager
def opening() -> Iterator[None]:
    """Convert errors of httpx in the construction of a client.

    Raises:
        InvalidArgument: An environment variable for proxies or certificates is invalid.
    """
    try:
        yield
    except (httpx.InvalidURL, ValueError, ImportError, OSError) as exc:
        raise InvalidArgument(f"the environment has invalid proxies or certificates: {exc}") from exc


@contextmanager
def translated(http: httpx.Client | httpx.AsyncClient) -> Iterator[None]:
    """Convert errors that ``http`` raises in the context to errors of this package.

    Raises:
        ClientClosed: The client is closed.
        Timeout: The server did not answer in time.
        UnexpectedResponse: The answer to a streaming request is not an event stream.
        ConnectionFailed: The server cannot be reached, or the connection broke.
    """
    try:
        yield
    except httpx.TimeoutException as exc:
        raise Timeout(f"{http.base_url} did not answer in time") from exc
    except SSEError as exc:
        raise UnexpectedResponse(f"{http.base_url} did not answer with an event stream: {exc}") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ConnectionFailed(f"cannot reach {http.base_url}: {exc}") from exc
    except RuntimeError as exc:
        if http.is_closed:
            raise ClientClosed(f"the client of {http.base_url} is closed; create a new one") from exc
        raise ConnectionFailed(f"cannot reach {http.base_url}: {exc}") from exc


def _steering(profile: str | Sequence[str] | None, strength: float | None, left_out: Sequence[str]) -> dict[str, Any]:
    """Return the ``steering`` field of a body, or nothing without a profile.

    Raises:
        InvalidArgument: A strength or components are given without a profile, or the components as one string.
    """
    if isinstance(left_out, str):
        raise InvalidArgument(f"left_out is {left_out[:_SHOWN]!r}; allowed: a list of components")
    if profile is None:
        if strength is not None:
            raise InvalidArgument(f"strength is {strength}, but no profile is given")
        if left_out:
            raise InvalidArgument(f"left_out is {list(left_out)[:8]}, but no profile is given")
        return {}
    names = profile if isinstance(profile, str) else list(profile)
    steering: dict[str, Any] = {"profile": names, "strength": 1.0 if strength is None else strength}
    return {"steering": {**steering, "except": list(left_out)} if left_out else steering}


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None
