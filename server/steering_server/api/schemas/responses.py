"""Response bodies in OpenAI's format, with the fields ``arm``, ``steering`` and ``comparison`` added."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from steering_server.generation.requests import FinishReason


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


def _absent() -> Any:
    """Return a field that OpenAI's format does not have: it is left out where it does not apply, rather than null."""
    return Field(default=None, exclude_if=lambda value: value is None)


class AppliedProfile(_Response):
    """One profile of an arm."""

    profile: str
    content_hash: str
    strength: float


class Effective(_Response):
    """The changes that an arm makes to the model, all of its profiles together."""

    heads: int
    """Number of attention heads whose factor is not 1."""
    neurons: int
    """Number of feed-forward neurons whose factor is not 1."""
    own_attention: float
    """Share of the final layer's attention that is replaced by each position's own value, 0..1."""
    intercept_scale: float
    """Factor of the MLP's intercept, which is subtracted; for different intercepts the sum of their factors."""
    gate: str | None
    """Band of the top probability in which the last two apply, such as ``0.1..0.5``; null for everywhere."""


class Applied(_Response):
    """The profiles that one arm applied. The baseline has no profile and strength 0."""

    arm: str
    profile: str | None
    """The profiles' names joined by ``+``."""
    content_hash: str | None
    """The profile's hash, or a hash of the hashes of several profiles."""
    strength: float
    profiles: tuple[AppliedProfile, ...]
    effective: Effective
    warnings: tuple[str, ...]
    """Requested changes that have no effect, or not the full one."""


class AppliedArms(_Response):
    """The profiles that each arm applied, in order."""

    arms: tuple[Applied, ...]


class Usage(_Response):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ArmPair(_Response):
    """Comparison of two arms of the same prompt."""

    arms: tuple[str, str]
    choices: tuple[int, int]
    """Their indices among the choices."""
    first_difference: int | None
    """Position in the completion of the first token that differs; null if none does."""
    logprobs: dict[str, dict[str, list[float]]] | None
    """Arm that generated the tokens -> arm that scores them -> log-probabilities. Given if logprobs were requested."""


class Comparison(_Response):
    """All pairs of arms, for every prompt and every n."""

    pairs: tuple[ArmPair, ...]


class CompletionLogprobs(_Response):
    """Log-probabilities in the completions format."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(_Response):
    """One completion, or a chunk of one in a stream."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None
    arm: str | None = _absent()


class _Envelope(_Response):
    """Fields of all answers."""

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
    """The text that a chunk adds to the assistant's message."""

    role: Literal["assistant"] | None = _absent()
    content: str | None = _absent()


class ChatChunkChoice(_Response):
    """A chunk of one answer."""

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
    """A name that requests can give as ``model``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "steering-server"
    batch_invariant: bool
    """Whether tokens and log-probabilities are bit for bit the same alone and in any batch."""
    batch_invariant_reason: str | None = _absent()
    """Reason why they are not."""


class ModelList(_Response):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ProfileObject(_Response):
    """A profile and whether this server can apply it."""

    name: str
    object: Literal["profile"] = "profile"
    description: str
    method: str
    summary: str
    content_hash: str
    model: str
    """The model that the profile was fitted on."""
    model_name: str | None
    """The ``model`` of requests that steers with this profile; null if it is not usable."""
    shipped: bool
    usable: bool
    forced: bool
    reason: str | None
    own_attention_range: tuple[float, float] | None
    """Range of strengths outside of which the share of self-only attention is limited; null if it is not changed."""
    side_effects: dict[str, Any] | None
    """Side effects on other text, measured when the profile was fitted; null if they were not."""
    flags: list[str]
    """Texts whose NLL increases by more than the limit, such as ``prose +2.3%``."""


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
    """The error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(_Response):
    """Body of all error responses."""

    error: ErrorBody
