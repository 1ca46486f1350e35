"""Response bodies in OpenAI's format, with the fields ``arm``, ``steering`` and ``comparison`` added."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from steering_server.generation.requests import FinishReason


class ResponseBody(BaseModel):
    """Base of all bodies of responses."""

    # Fields whose names are words of Python have them as aliases.
    model_config = ConfigDict(frozen=True, protected_namespaces=(), serialize_by_alias=True)


def absent() -> Any:
    """Return a field that OpenAI's format does not have: it is left out where it does not apply, rather than null."""
    return Field(default=None, exclude_if=lambda value: value is None)


class AppliedProfile(ResponseBody):
    """One profile of an arm."""

    profile: str
    content_hash: str
    """Hash of what was applied; without some components, of the profile's content without them."""
    strength: float
    left_out: Annotated[tuple[str, ...], Field(serialization_alias="except", exclude_if=lambda names: not names)] = ()
    """Components that were left out; absent if none was."""


class Effective(ResponseBody):
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
    when: tuple[str, ...] = Field(default=(), exclude_if=lambda conditions: not conditions)
    """The conditions under which profiles take effect; left out where all of them do everywhere."""


class Applied(ResponseBody):
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


class AppliedArms(ResponseBody):
    """The profiles that each arm applied, in order."""

    arms: tuple[Applied, ...]


class ExposureObject(ResponseBody):
    """The experiment that assigned a request to its arm, and what outcomes of the answer are sent by."""

    id: str
    experiment: str
    arm: str


class Usage(ResponseBody):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ArmPair(ResponseBody):
    """Comparison of two arms of the same prompt."""

    arms: tuple[str, str]
    choices: tuple[int, int]
    """Their indices among the choices."""
    first_difference: int | None
    """Position in the completion of the first token that differs; null if none does."""
    logprobs: dict[str, dict[str, list[float]]] | None
    """Arm that generated the tokens -> arm that scores them -> log-probabilities. Given if logprobs were requested."""


class Comparison(ResponseBody):
    """All pairs of arms, for every prompt and every n."""

    pairs: tuple[ArmPair, ...]


class CompletionLogprobs(ResponseBody):
    """Log-probabilities in the completions format."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class PromptTokenLogprob(ResponseBody):
    """Log-probability of a token at one position of the prompt, in vLLM's format."""

    logprob: float
    rank: int | None
    """1 for the likeliest token."""
    decoded_token: str


PromptLogprobs = list[dict[str, PromptTokenLogprob] | None]
"""For each token of the prompt, by token id: the token itself and the likeliest ones; null for the first."""


class CompletionChoice(ResponseBody):
    """One completion, or a chunk of one in a stream."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None
    prompt_logprobs: PromptLogprobs | None = absent()
    token_ids: list[int] | None = absent()
    """The generated tokens, the one that ended the text included, if ``return_token_ids``."""
    prompt_token_ids: list[int] | None = absent()
    """The prompt's tokens; in a stream with the first chunk of each choice."""
    arm: str | None = absent()


class Envelope(ResponseBody):
    """Fields of all answers."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Any]
    usage: Usage | None = None
    steering: Applied | AppliedArms
    exposure: ExposureObject | None = absent()
    """Only where an experiment has assigned the request."""
    comparison: Comparison | None = absent()

    @property
    def is_plain(self) -> bool:
        """Whether it differs from other chunks of its stream in its choices only."""
        return bool(self.choices) and self.usage is None and self.comparison is None


class Completion(Envelope):
    """Answer of ``POST /v1/completions``, and every chunk of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class TopLogprob(ResponseBody):
    """One alternative in the chat format."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(TopLogprob):
    """One token in the chat format."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(ResponseBody):
    """Log-probabilities in the chat format."""

    content: list[ChatTokenLogprob]
    refusal: None = None


ChatFinishReason = FinishReason | Literal["tool_calls"]


class CalledFunction(ResponseBody):
    """A function that the model calls."""

    name: str
    arguments: str
    """JSON; not complete if the answer ended before it was."""


class ToolCallMade(ResponseBody):
    """A call by the model."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(ResponseBody):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    """Null if there are calls only."""
    refusal: None = None
    tool_calls: list[ToolCallMade] | None = absent()


class ChatChoice(ResponseBody):
    """One answer to a conversation."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None
    prompt_logprobs: PromptLogprobs | None = absent()
    """With ``arms``; without, the answer has one for all choices."""
    token_ids: list[int] | None = absent()
    """The generated tokens, the one that ended the text included, if ``return_token_ids``."""
    arm: str | None = absent()


class ChatCompletion(Envelope):
    """Answer of ``POST /v1/chat/completions``."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    prompt_logprobs: PromptLogprobs | None = absent()
    prompt_token_ids: list[int] | None = absent()
    """The prompt's tokens, if ``return_token_ids``."""


class FunctionDelta(ResponseBody):
    """The name of a called function, or a piece of its arguments."""

    name: str | None = absent()
    arguments: str


class ToolCallDelta(ResponseBody):
    """What a chunk adds to a call: first its id and name, then pieces of its arguments."""

    index: int
    id: str | None = absent()
    type: Literal["function"] | None = absent()
    function: FunctionDelta


class ChatDelta(ResponseBody):
    """What a chunk adds to the assistant's message."""

    role: Literal["assistant"] | None = absent()
    content: str | None = absent()
    tool_calls: list[ToolCallDelta] | None = absent()


class ChatChunkChoice(ResponseBody):
    """A chunk of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None
    token_ids: list[int] | None = absent()
    arm: str | None = absent()


class ChatCompletionChunk(Envelope):
    """One chunk of a streamed chat answer."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]
    prompt_token_ids: list[int] | None = absent()
    """The prompt's tokens, with the first chunk of the stream, if ``return_token_ids``."""

    @property
    def is_plain(self) -> bool:
        """Whether it differs from other chunks of its stream in its choices only."""
        return super().is_plain and self.prompt_token_ids is None


class ModelObject(ResponseBody):
    """A name that requests can give as ``model``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "steering-server"
    arm: str
    """What the name selects: ``baseline``, or profiles and their strength."""
    batch_invariant: bool
    """Whether tokens and log-probabilities are bit for bit the same alone and in any batch."""
    batch_invariant_reason: str | None = absent()
    """Reason why they are not."""


class ModelList(ResponseBody):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class Health(ResponseBody):
    """Answer of ``GET /health``."""

    status: Literal["ok"] = "ok"


class Readiness(ResponseBody):
    """Answer of ``GET /ready``."""

    status: Literal["ready"] = "ready"
    model: str


class Version(ResponseBody):
    """Answer of ``GET /version``."""

    version: str


class ErrorBody(ResponseBody):
    """The error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(ResponseBody):
    """Body of all error responses."""

    error: ErrorBody
