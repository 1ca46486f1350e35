"""Response bodies: OpenAI's shapes, and what this server adds to them (``arm``, ``steering``, ``comparison``)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from steering_server.generation.requests import FinishReason


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


def _absent() -> Any:
    """A field of ours that OpenAI's shape does not have: left out rather than null where it does not apply."""
    return Field(default=None, exclude_if=lambda value: value is None)


class AppliedProfile(_Response):
    """One profile of an arm."""

    profile: str
    content_hash: str
    strength: float


class Effective(_Response):
    """What an arm changes, all of its profiles together, at their strength."""

    heads: int
    """Attention heads whose factor is not 1."""
    neurons: int
    """Feed-forward neurons whose factor is not 1."""
    own_attention: float
    """Share of the final layer's attention that is replaced by each position's own value, 0..1."""
    intercept_scale: float
    """How much of the MLP's intercept is subtracted; of different intercepts the sum of how much of each is."""
    gate: str | None
    """The band of the top probability in which the last two take place, as ``0.1..0.5``; null: everywhere."""


class Applied(_Response):
    """What one arm applied. The baseline has no profile and strength 0."""

    arm: str
    profile: str | None
    """The profiles' names joined by ``+``."""
    content_hash: str | None
    """The profile's hash, or one over the hashes of several."""
    strength: float
    profiles: tuple[AppliedProfile, ...]
    effective: Effective
    warnings: tuple[str, ...]
    """What was asked for and does nothing, or not in full."""


class AppliedArms(_Response):
    """What each arm of a request applied, in order."""

    arms: tuple[Applied, ...]


class Usage(_Response):
    """Tokens counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ArmPair(_Response):
    """Where two arms of the same prompt part, and how likely each finds the other's tokens."""

    arms: tuple[str, str]
    choices: tuple[int, int]
    """Their indices among the choices."""
    first_difference: int | None
    """Position of the first token that differs, counted from the start of the completion; null if none does."""
    logprobs: dict[str, dict[str, list[float]]] | None
    """Arm whose tokens they are -> arm that scores them -> log-probabilities. Given where logprobs were asked."""


class Comparison(_Response):
    """Every pair of arms, for every prompt and every n."""

    pairs: tuple[ArmPair, ...]


class CompletionLogprobs(_Response):
    """Log-probabilities in the completions format."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(_Response):
    """One completion, or a piece of one in a stream."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None
    arm: str | None = _absent()


class _Envelope(_Response):
    """What all answers have; each kind says what its object and its choices are."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Any]
    usage: Usage | None = None
    steering: Applied | AppliedArms
    comparison: Comparison | None = _absent()


class Completion(_Envelope):
    """Answer of ``POST /v1/completions``, and every chunk of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class TopLogprob(_Response):
    """One alternative in the chat format."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(TopLogprob):
    """One token in the chat format."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Response):
    """Log-probabilities in the chat format."""

    content: list[ChatTokenLogprob]
    refusal: None = None


class ChatMessage(_Response):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(_Response):
    """One answer to a conversation."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None
    arm: str | None = _absent()


class ChatCompletion(_Envelope):
    """Answer of ``POST /v1/chat/completions``."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChatDelta(_Response):
    """What a chunk adds to the assistant's message."""

    role: Literal["assistant"] | None = _absent()
    content: str | None = _absent()


class ChatChunkChoice(_Response):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None
    arm: str | None = _absent()


class ChatCompletionChunk(_Envelope):
    """One chunk of a streamed chat answer."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]


class ModelObject(_Response):
    """A name that requests can carry as ``model``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "steering-server"


class ModelList(_Response):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ProfileObject(_Response):
    """A profile and whether this server applies it."""

    name: str
    object: Literal["profile"] = "profile"
    description: str
    method: str
    summary: str
    content_hash: str
    model: str
    """The model that it was fitted on."""
    model_name: str | None
    """The ``model`` that steers with it in requests, where it is usable."""
    shipped: bool
    usable: bool
    forced: bool
    reason: str | None
    own_attention_range: tuple[float, float] | None
    """Strengths within which self-only attention follows the strength; it is held at the ends beyond. Null without
    any."""
    side_effects: dict[str, Any] | None
    """What else it changes, per text, as it was measured when it was fitted; null where it was not."""
    flags: list[str]
    """The texts that it predicts worse than the limit allows, such as ``prose +2.3%``."""


class ProfileDetail(ProfileObject):
    """A profile with its whole content."""

    profile: dict[str, Any]


class ProfileList(_Response):
    """Answer of ``GET /v1/profiles``."""

    object: Literal["list"] = "list"
    data: list[ProfileObject]


class Health(_Response):
    """Answer of ``GET /health``."""

    status: Literal["ok"] = "ok"


class Readiness(_Response):
    """Answer of ``GET /ready``."""

    status: Literal["ready"] = "ready"
    model: str


class ErrorBody(_Response):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(_Response):
    """Every error this server answers with."""

    error: ErrorBody
