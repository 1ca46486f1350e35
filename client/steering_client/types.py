"""What the server answers. Fields that a newer server may add are ignored."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class AppliedProfile(_Answer):
    """One profile of an arm, as it was applied."""

    profile: str
    content_hash: str
    strength: float


class Effective(_Answer):
    """What an arm changes, all of its profiles together, at their strength."""

    heads: int
    neurons: int
    own_attention: float
    """Share of the final layer's attention that is replaced, 0..1."""
    intercept_scale: float
    gate: str | None = None
    """The band of the top probability in which the last two take place; None where it is everywhere."""


class Applied(_Answer):
    """What one arm applied; the baseline has no profile."""

    arm: str
    profile: str | None
    content_hash: str | None
    strength: float
    profiles: tuple[AppliedProfile, ...]
    effective: Effective | None = None
    warnings: tuple[str, ...] = ()
    """What was asked for and does nothing, or not in full."""


class AppliedArms(_Answer):
    """What each arm of a request applied."""

    arms: tuple[Applied, ...]


class Usage(_Answer):
    """Tokens counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ArmPair(_Answer):
    """Where two arms part, and how likely each finds the other's tokens."""

    arms: tuple[str, str]
    choices: tuple[int, int]
    first_difference: int | None
    """Position of the first token that differs; None if none does."""
    logprobs: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None
    """Arm whose tokens they are -> arm that scores them -> log-probabilities."""


class ArmComparison(_Answer):
    """Every pair of arms."""

    pairs: tuple[ArmPair, ...]


class CompletionLogprobs(_Answer):
    """Log-probabilities of a completion's tokens."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    top_logprobs: tuple[Mapping[str, float] | None, ...] | None
    text_offset: tuple[int, ...]


class CompletionChoice(_Answer):
    """One completion, or in a stream a piece of one."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None
    arm: str | None = None


class _Envelope(_Answer):
    id: str
    created: int
    model: str
    steering: Applied | AppliedArms
    usage: Usage | None = None
    comparison: ArmComparison | None = None


class Completion(_Envelope):
    """The answer to a completion request."""

    choices: tuple[CompletionChoice, ...]

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].text

    def by_arm(self) -> dict[str, list[CompletionChoice]]:
        """Return the choices of each arm, in the order of the request."""
        arms: dict[str, list[CompletionChoice]] = {}
        for choice in self.choices:
            arms.setdefault(choice.arm or "", []).append(choice)
        return arms


class CompletionChunk(Completion):
    """A piece of a streamed completion."""


class ChatLogprob(_Answer):
    """A token's log-probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    """The token's own bytes, parts of characters included; joined they are the message."""


class ChatTokenLogprob(ChatLogprob):
    """A token's log-probability and the likeliest alternatives."""

    top_logprobs: tuple[ChatLogprob, ...] = ()


class ChatLogprobs(_Answer):
    """Log-probabilities of an answer's tokens."""

    content: tuple[ChatTokenLogprob, ...]


class ChatMessage(_Answer):
    """The assistant's message."""

    role: str
    content: str


class ChatChoice(_Answer):
    """One answer to a conversation."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    arm: str | None = None


class ChatCompletion(_Envelope):
    """The answer to a chat request."""

    choices: tuple[ChatChoice, ...]

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.content


class ChatDelta(_Answer):
    """What a chunk adds to the message."""

    role: str | None = None
    content: str | None = None


class ChatChunkChoice(_Answer):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    arm: str | None = None


class ChatChunk(_Envelope):
    """A piece of a streamed chat answer."""

    choices: tuple[ChatChunkChoice, ...]


class Model(_Answer):
    """A name that requests can carry as ``model``."""

    id: str
    created: int


class ModelList(_Answer):
    """The models of a server."""

    data: tuple[Model, ...]


class Profile(_Answer):
    """A profile and whether the server applies it."""

    name: str
    description: str
    method: str
    summary: str
    content_hash: str
    model: str
    model_name: str | None
    shipped: bool
    usable: bool
    forced: bool
    reason: str | None
    own_attention_range: tuple[float, float] | None = None
    """Strengths within which self-only attention follows the strength; None without any."""
    side_effects: Mapping[str, Any] | None = None
    """What else it changes, per text, as it was measured when it was fitted; None where it was not."""
    flags: tuple[str, ...] = ()
    """The texts that it predicts worse than the limit allows, such as ``prose +2.3%``."""
    profile: Mapping[str, Any] | None = None
    """The whole content; only where one profile was asked for."""


class ProfileList(_Answer):
    """The profiles of a server."""

    data: tuple[Profile, ...]


class Health(_Answer):
    """A server that is alive."""

    status: str


class Readiness(_Answer):
    """A server that takes requests."""

    status: str
    model: str


class ErrorBody(_Answer):
    """What went wrong."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


class ErrorResponse(_Answer):
    """An error answer."""

    error: ErrorBody
