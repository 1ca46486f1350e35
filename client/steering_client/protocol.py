"""What goes over the wire, without the wire: the sync and the async client share all of this."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import httpx
from pydantic import BaseModel, ValidationError

from steering_client.errors import (
    APIError,
    BadRequest,
    ConnectionFailed,
    NotFound,
    RateLimited,
    ServerFailure,
    SteeringClientError,
    StreamInterrupted,
    Timeout,
    UnexpectedResponse,
)
from steering_client.types import ErrorResponse

DONE = "[DONE]"

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


def headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


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


def translate(exc: httpx.HTTPError, base_url: str) -> SteeringClientError:
    """Return our error for one of httpx's."""
    if isinstance(exc, httpx.TimeoutException):
        return Timeout(f"{base_url} did not answer in time")
    return ConnectionFailed(f"cannot reach {base_url}: {exc}")


def _steering(profile: str | Sequence[str] | None, strength: float | None) -> dict[str, Any]:
    """Return what a body says of steering.

    Raises:
        ValueError: a strength is given, but no profile that it could be of.
    """
    if profile is None:
        if strength is not None:
            raise ValueError(f"strength is {strength}, but no profile is given")
        return {}
    names = profile if isinstance(profile, str) else list(profile)
    return {"steering": {"profile": names, "strength": 1.0 if strength is None else strength}}


def _seconds(retry_after: str | None) -> float | None:
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None
