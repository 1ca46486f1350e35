"""Answers of the server. Unknown fields, which a newer server may add, are ignored."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length", "tool_calls"]


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class AppliedProfile(Answer):
    """A profile as it was applied to an arm."""

    profile: str
    content_hash: str
    """Hash of what was applied; without some components, of the profile's content without them."""
    strength: float
    left_out: Annotated[tuple[str, ...], Field(validation_alias="except")] = ()
    """Components that were left out."""


class Effective(Answer):
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
    when: tuple[str, ...] = ()
    """Conditions under which profiles take effect; empty if all of them do everywhere."""


class Applied(Answer):
    """Steering of one arm; the baseline has no profile."""

    arm: str
    profile: str | None
    content_hash: str | None
    strength: float
    profiles: tuple[AppliedProfile, ...]
    effective: Effective | None = None
    warnings: tuple[str, ...] = ()
    """Settings that have no effect, or not in full."""


class AppliedArms(Answer):
    """Steering of each arm of a request."""

    arms: tuple[Applied, ...]


class Usage(Answer):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ArmPair(Answer):
    """First difference of two arms, and the log-probability of each one's tokens under the other."""

    arms: tuple[str, str]
    choices: tuple[int, int]
    first_difference: int | None
    """Position of the first token that differs; None if there is none."""
    logprobs: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None
    """Arm that generated the tokens -> arm that scores them -> log-probabilities."""


class ArmComparison(Answer):
    """Comparison of all pairs of arms."""

    pairs: tuple[ArmPair, ...]


class CompletionLogprobs(Answer):
    """Log-probabilities of a completion's tokens."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    top_logprobs: tuple[Mapping[str, float] | None, ...] | None
    text_offset: tuple[int, ...]


class CompletionChoice(Answer):
    """A completion, or in a stream a part of one."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None
    arm: str | None = None


class Exposure(Answer):
    """The experiment that assigned a request to its arm."""

    id: str
    """What outcomes of the answer are sent by."""
    experiment: str
    arm: str


class _Envelope(Answer):
    id: str
    created: int
    model: str
    steering: Applied | AppliedArms
    exposure: Exposure | None = None
    """None unless an experiment has assigned the request."""
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
    """A chunk of a streamed completion. The last one has no choice, but the usage and the comparison of arms."""

    @property
    def text(self) -> str:
        """Text that the chunk adds to the first of its choices."""
        return self.choices[0].text if self.choices else ""


class ChatLogprob(Answer):
    """A token's log-probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    """UTF-8 bytes of the token, which may be a part of a character; the message is their concatenation."""


class ChatTokenLogprob(ChatLogprob):
    """A token's log-probability and the most likely alternatives."""

    top_logprobs: tuple[ChatLogprob, ...] = ()


class ChatLogprobs(Answer):
    """Log-probabilities of an answer's tokens."""

    content: tuple[ChatTokenLogprob, ...]


class FunctionCall(Answer):
    """The function that the model calls."""

    name: str
    arguments: str
    """JSON."""


class ToolCall(Answer):
    """A call of a tool."""

    id: str
    type: str = "function"
    function: FunctionCall


class ChatMessage(Answer):
    """The assistant's message."""

    role: str
    content: str | None
    """None if the model calls tools."""
    tool_calls: tuple[ToolCall, ...] | None = None


class ChatChoice(Answer):
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
        """The text of the first choice; empty if the model calls tools."""
        return self.choices[0].message.content or ""


class FunctionCallDelta(Answer):
    """The part of a call of a function that a chunk adds."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Answer):
    """The part of a call of a tool that a chunk adds to the call of this index."""

    index: int
    id: str | None = None
    function: FunctionCallDelta | None = None


class ChatDelta(Answer):
    """What a chunk adds to the message."""

    role: str | None = None
    content: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None


class ChatChunkChoice(Answer):
    """A part of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    arm: str | None = None


class ChatChunk(_Envelope):
    """A chunk of a streamed chat answer."""

    choices: tuple[ChatChunkChoice, ...]


class Model(Answer):
    """A name that ``model`` accepts."""

    id: str
    created: int
    arm: str | None = None
    """What the name selects: ``baseline``, or profiles and their strength; None from a server that does not say."""
    batch_invariant: bool | None = None
    """Whether answers are the same alone and in any batch, bit for bit; None from a server that does not say."""
    batch_invariant_reason: str | None = None
    """Reason why they are not."""


class ModelList(Answer):
    """The models of a server."""

    data: tuple[Model, ...]


class Profile(Answer):
    """A profile and whether the server can apply it."""

    name: str
    description: str
    method: str
    summary: str
    when: str | None = None
    """Condition under which it takes effect; None if it does everywhere."""
    content_hash: str
    model: str
    model_name: str | None
    shipped: bool
    storage: Literal["shipped", "folder", "memory"] | None = None
    """Where the server keeps it; ``memory`` is lost when it ends. None from a server that does not say."""
    enabled: bool = True
    """Whether requests may use it."""
    usable: bool
    forced: bool
    reason: str | None
    own_attention_range: tuple[float, float] | None = None
    """Strengths between which the share of self-only attention is proportional to the strength; None without any."""
    side_effects: Mapping[str, Any] | None = None
    """Effect on what has nothing to do with the task, by what was measured when the profile was fitted; None if nothing
    was. What has a ``kind`` is no text: ``last words`` of sentences, or ``minimal pairs`` of grammar."""
    has_report: bool = False
    """Whether the server has the report of its fit."""
    flags: tuple[str, ...] = ()
    """Texts whose NLL increases by more than the limit, such as ``prose +2.3%``, and last words or minimal pairs that
    lose more, such as ``last words -2.1 points``."""
    profile: Mapping[str, Any] | None = None
    """Whole content of the profile; None in a list."""


class ProfileFileFault(Answer):
    """A file in the server's folder of profiles that cannot be used."""

    file: str | None
    """None for the folder itself."""
    message: str
    kept: str | None
    """Content hash of the version that stays in use."""


class ProfileList(Answer):
    """The profiles of a server."""

    data: tuple[Profile, ...]
    default: str = "baseline"
    """What is applied to requests that do not say it."""
    faults: tuple[ProfileFileFault, ...] = ()


class ProfileChange(Answer):
    """A change of a profile, made or checked."""

    name: str
    content_hash: str | None
    """The version after the change; None if the profile is gone."""
    replaced: str | None
    """The version before the change; None if there was none."""
    survives_restart: bool
    """Whether the server has written the change to its folder; otherwise it ends with the server."""
    profile: Profile | None
    """The profile after the change."""


class Health(Answer):
    """A server that is alive."""

    status: str


class Readiness(Answer):
    """A server that takes requests."""

    status: str
    model: str


class ErrorBody(Answer):
    """Description of an error."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


class ErrorResponse(Answer):
    """An error answer."""

    error: ErrorBody
