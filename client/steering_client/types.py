"""Answers of the server. Unknown fields, which a newer server may add, are ignored."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class AppliedProfile(_Answer):
    """A profile as it was applied to an arm."""

    profile: str
    content_hash: str
    strength: float


class Effective(_Answer):
    """Effect of all profiles of an arm together, at their strengths."""

    heads: int
    """Number of scaled attention heads."""
    neurons: int
    """Number of scaled neurons."""
    own_attention: float
    """Share of the final layer's attention that is replaced by self-only attention, 0..1."""
    intercept_scale: float
    """Multiple of the final MLP's intercept that is subtracted."""
    gate: str | None = None
    """Band of the top probability in which the final layer is changed; None if it is changed everywhere."""


class Applied(_Answer):
    """Steering of one arm; the baseline has no profile."""

    arm: str
    profile: str | None
    content_hash: str | None
    strength: float
    profiles: tuple[AppliedProfile, ...]
    effective: Effective | None = None
    warnings: tuple[str, ...] = ()
    """Settings that have no effect, or not in full."""


class AppliedArms(_Answer):
    """Steering of each arm of a request."""

    arms: tuple[Applied, ...]


class Usage(_Answer):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ArmPair(_Answer):
    """First difference of two arms, and the log-probability of each one's tokens under the other."""

    arms: tuple[str, str]
    choices: tuple[int, int]
    first_difference: int | None
    """Position of the first token that differs; None if there is none."""
    logprobs: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None
    """Arm that generated the tokens -> arm that scores them -> log-probabilities."""


class ArmComparison(_Answer):
    """Comparison of all pairs of arms."""

    pairs: tuple[ArmPair, ...]


class CompletionLogprobs(_Answer):
    """Log-probabilities of a completion's tokens."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    top_logprobs: tuple[Mapping[str, float] | None, ...] | None
    text_offset: tuple[int, ...]


class CompletionChoice(_Answer):
    """A completion, or in a stream a part of one."""

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
    """A chunk of a streamed completion."""


class ChatLogprob(_Answer):
    """A token's log-probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    """UTF-8 bytes of the token, which may be a part of a character; the message is their concatenation."""


class ChatTokenLogprob(ChatLogprob):
    """A token's log-probability and the most likely alternatives."""

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
    """Text that a chunk adds to the message."""

    role: str | None = None
    content: str | None = None


class ChatChunkChoice(_Answer):
    """A part of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    arm: str | None = None


class ChatChunk(_Envelope):
    """A chunk of a streamed chat answer."""

    choices: tuple[ChatChunkChoice, ...]


class Model(_Answer):
    """A name that ``model`` accepts."""

    id: str
    created: int
    batch_invariant: bool | None = None
    """Whether answers are the same alone and in any batch, bit for bit; None from a server that does not say."""
    batch_invariant_reason: str | None = None
    """Reason why they are not."""


class ModelList(_Answer):
    """The models of a server."""

    data: tuple[Model, ...]


class Profile(_Answer):
    """A profile and whether the server can apply it."""

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
    """Strengths between which the share of self-only attention is proportional to the strength; None without any."""
    side_effects: Mapping[str, Any] | None = None
    """Effect on other text, by text, as measured when the profile was fitted; None if it was not."""
    flags: tuple[str, ...] = ()
    """Texts whose NLL increases by more than the limit, such as ``prose +2.3%``."""
    profile: Mapping[str, Any] | None = None
    """Whole content of the profile; None in a list."""


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
    """Description of an error."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


class ErrorResponse(_Answer):
    """An error answer."""

    error: ErrorBody
