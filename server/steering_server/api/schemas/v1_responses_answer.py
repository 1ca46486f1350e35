"""Answer of ``POST /v1/responses`` and the events of its stream: OpenAI's format, with ``arm`` and ``steering``."""

from typing import Any, Literal

from pydantic import Field

from steering_server.api.schemas.responses import (
    Applied,
    AppliedArms,
    ChatTokenLogprob,
    Comparison,
    ExposureObject,
    ResponseBody,
    absent,
)

Status = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(ResponseBody):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default_factory=list)
    logprobs: list[ChatTokenLogprob] = Field(default_factory=list)


class OutputMessage(ResponseBody):
    """The assistant's message; one for each arm, unless that calls functions only."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]
    arm: str | None = absent()


class FunctionCallMade(ResponseBody):
    """A call of a function by the model."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    call_id: str
    """What the result of the call is sent back with."""
    name: str
    arguments: str
    """JSON; not complete if the answer ended before it was."""
    arm: str | None = absent()


OutputItem = OutputMessage | FunctionCallMade


class OfferedFunction(ResponseBody):
    """A function that the model was told about, as in the request."""

    type: Literal["function"] = "function"
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: Literal[True] = True
    """The schema of the parameters is always enforced."""


class InputTokensDetails(ResponseBody):
    """Parts of the input tokens. What the prefix cache saved is not counted."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(ResponseBody):
    """Parts of the output tokens."""

    reasoning_tokens: int = 0


class ResponsesUsage(ResponseBody):
    """Numbers of tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class FailureOfResponse(ResponseBody):
    """Why a response failed after its stream had begun."""

    code: str
    message: str


class IncompleteDetails(ResponseBody):
    """Why a response is not complete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class TextConfig(ResponseBody):
    """The form of the answer."""

    format: dict[str, Any] = Field(default_factory=lambda: {"type": "text"})
    """As in the request."""


class ResponseObject(ResponseBody):
    """Answer of ``POST /v1/responses``."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    background: bool = False
    error: FailureOfResponse | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, Any]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: None = None
    reasoning: None = None
    service_tier: Literal["default"] = "default"
    store: Literal[False] = False
    """No response is stored, whatever the request says."""
    temperature: float
    text: TextConfig
    tool_choice: str | dict[str, Any]
    """As in the request."""
    tools: list[OfferedFunction]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponsesUsage | None = None
    user: str | None
    steering: Applied | AppliedArms
    exposure: ExposureObject | None = absent()
    """Only where an experiment has assigned the request."""
    comparison: Comparison | None = absent()


class ResponsesEvent(ResponseBody):
    """An event of a stream; ``type`` is the name of the event."""

    type: str
    sequence_number: int


class ResponseEvent(ResponsesEvent):
    """The response has begun or ended."""

    type: Literal[
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
    ]
    response: ResponseObject


class OutputItemEvent(ResponsesEvent):
    """A message or a call has begun or ended."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: OutputItem


class _OfItem(ResponsesEvent):
    item_id: str
    output_index: int


class _OfMessage(_OfItem):
    content_index: int = 0


class ContentPartEvent(_OfMessage):
    """The text of a message has begun or ended."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputText


class TextDeltaEvent(_OfMessage):
    """New text of a message."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str
    logprobs: list[ChatTokenLogprob]


class TextDoneEvent(_OfMessage):
    """The whole text of a message."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str
    logprobs: list[ChatTokenLogprob]


class ArgumentsDeltaEvent(_OfItem):
    """A piece of the arguments of a call."""

    type: Literal["response.function_call_arguments.delta"] = "response.function_call_arguments.delta"
    delta: str


class ArgumentsDoneEvent(_OfItem):
    """The whole arguments of a call."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    name: str
    arguments: str
