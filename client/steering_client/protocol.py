"""What goes over the wire, without the wire: the sync and the async client share all of this."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from steering_client.errors import (
    APIError,
    BadRequest,
    ClientClosed,
    ConnectionFailed,
    InvalidArgument,
    NotFound,
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
_SHOWN = 100  # characters of what is refused

Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
Arm = str | Mapping[str, Any]
"""``baseline``, ``a``, ``a+b``, or ``{"profile": ..., "strength": ..., "name": ...}``."""


class MessageParam(TypedDict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class SamplingOptions(TypedDict, total=False):
    """How text is generated; whatever is left out takes the server's default."""

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


class CompletionOptions(SamplingOptions, total=False):
    """Options of completions."""

    logprobs: int
    echo: bool


class ChatOptions(SamplingOptions, total=False):
    """Options of chat completions."""

    max_completion_tokens: int
    logprobs: bool
    top_logprobs: int
    add_generation_prompt: bool
    continue_final_message: bool


def completion_body(
    prompt: Prompt, profile: str | Sequence[str] | None, strength: float | None, **options: Unpack[CompletionOptions]
) -> dict[str, Any]:
    """Return the body of a completion request."""
    return {"prompt": prompt, **options, **_steering(profile, strength)}


def chat_body(
    messages: Sequence[MessageParam],
    profile: str | Sequence[str] | None,
    strength: float | None,
    **options: Unpack[ChatOptions],
) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"messages": list(messages), **options, **_steering(profile, strength)}


def comparison_body(prompt: Prompt, arms: Sequence[Arm], **options: Unpack[CompletionOptions]) -> dict[str, Any]:
    """Return the body of a request that runs several arms."""
    return {"prompt": prompt, "arms": list(arms), **options}


def root(base_url: str) -> httpx.URL:
    """Return the URL that all paths follow, of a base URL with or without ``/v1`` and slashes at its end.

    Raises:
        InvalidArgument: it is no http or https URL of a server.
    """
    expected = "http://HOST:PORT or https://HOST:PORT, with or without /v1"
    refused = f"base URL is {base_url[:_SHOWN]!r}; expected is {expected}"
    try:
        url = httpx.URL(base_url)
        path = url.raw_path.rstrip(b"/").removesuffix(_VERSION).rstrip(b"/")
        # The zone of a link-local address is for the resolver, which takes it as it is and not as URLs write it.
        root = url.copy_with(host=url.host.replace("%25", "%"), raw_path=path or b"/")
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise InvalidArgument(f"{refused} ({exc})") from exc
    of_a_server = url.scheme in ("http", "https") and url.host and (url.port or 0) <= _MAX_PORT
    if not of_a_server or "?" in base_url or "#" in base_url:
        raise InvalidArgument(refused)
    return root


def headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request.

    Raises:
        InvalidArgument: the key holds a character that no header can carry. The message does not show the key.
    """
    for position, character in enumerate(api_key or "", start=1):
        if not "!" <= character <= "~":
            raise InvalidArgument(
                f"api_key holds {character!a} as character {position}; allowed: printable ASCII without spaces"
            )
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def checked_timeout(timeout: float | None) -> float | None:
    """Return ``timeout``, in seconds; None is for as long as it takes.

    Raises:
        InvalidArgument: it is no time to wait for.
    """
    if timeout is not None and not 0 < timeout < math.inf:  # false for NaN too
        raise InvalidArgument(f"timeout is {timeout}; allowed: finite numbers of seconds above 0")
    return timeout


def profile_path(name: str) -> str:
    """Return the path of the profile ``name``, whatever characters it has."""
    return f"/v1/profiles/{quote(name, safe='', errors='replace')}"


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as JSON.

    Raises:
        InvalidArgument: it holds something that JSON has not.
    """
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgument(f"the request cannot be written as JSON: {exc}") from exc


AnswerT = TypeVar("AnswerT", bound=BaseModel)


def read_answer(response: httpx.Response, shape: type[AnswerT]) -> AnswerT:
    """Return the answer in ``response``, read as ``shape``.

    Raises:
        APIError: the server answered with an error.
        UnexpectedResponse: the answer has another shape.
    """
    raise_for_error(response)
    return read_json(response.content, shape)


def read_json(content: str | bytes, shape: type[AnswerT]) -> AnswerT:
    """Read JSON as ``shape``.

    Raises:
        UnexpectedResponse: it has another shape.
    """
    try:
        return shape.model_validate_json(content)
    except ValidationError as exc:
        raise UnexpectedResponse(f"the answer is not a {shape.__name__}: {exc.errors()[0]['msg']}") from exc


def read_event(data: str, shape: type[AnswerT]) -> AnswerT:
    """Return a streamed chunk.

    Raises:
        StreamInterrupted: the event is an error.
        UnexpectedResponse: it is neither a chunk nor an error.
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
    """Raise the error that ``response`` is, if it is one. Its body has been read."""
    if response.is_success:
        return
    status = response.status_code
    try:
        body = ErrorResponse.model_validate_json(response.content).error
    except ValidationError as exc:
        raise UnexpectedResponse(f"{response.url} answered with status {status} and no error of ours") from exc
    kinds: dict[int, type[APIError]] = {404: NotFound, 429: RateLimited}
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
    """Turn what httpx finds wrong with the environment, when a client is made, into an error of ours.

    Raises:
        InvalidArgument: a variable for proxies or certificates cannot be used.
    """
    try:
        yield
    except (httpx.InvalidURL, ValueError, ImportError, OSError) as exc:
        raise InvalidArgument(f"the environment's proxies or certificates cannot be used: {exc}") from exc


@contextmanager
def translated(http: httpx.Client | httpx.AsyncClient) -> Iterator[None]:
    """Turn what ``http`` raises within into errors of ours.

    Raises:
        ClientClosed: it was closed.
        Timeout: the server did not answer in time.
        ConnectionFailed: the server cannot be reached, or the connection broke.
    """
    try:
        yield
    except httpx.TimeoutException as exc:
        raise Timeout(f"{http.base_url} did not answer in time") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ConnectionFailed(f"cannot reach {http.base_url}: {exc}") from exc
    except RuntimeError as exc:
        if http.is_closed:
            raise ClientClosed(f"the client of {http.base_url} was closed; make another one") from exc
        raise ConnectionFailed(f"cannot reach {http.base_url}: {exc}") from exc


def _steering(profile: str | Sequence[str] | None, strength: float | None) -> dict[str, Any]:
    """Return what a body says of steering.

    Raises:
        InvalidArgument: a strength is given, but no profile that it could be of.
    """
    if profile is None:
        if strength is not None:
            raise InvalidArgument(f"strength is {strength}, but no profile is given")
        return {}
    names = profile if isinstance(profile, str) else list(profile)
    return {"steering": {"profile": names, "strength": 1.0 if strength is None else strength}}


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None
