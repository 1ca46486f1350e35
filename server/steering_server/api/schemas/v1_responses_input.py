"""Items of the input of ``POST /v1/responses``: messages, calls of functions and their results."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from steering_server.api.schemas.fields import Text
from steering_server.api.schemas.requests import Message
from steering_server.api.schemas.strict import IGNORED, Neutral, Strict
from steering_server.api.schemas.tools import CalledFunction, ToolCall


class InputPart(Strict):
    """A part of a message's content."""

    type: Literal["input_text", "output_text"]
    text: Text
    annotations: Annotated[list[Any] | None, IGNORED] = None
    logprobs: Annotated[list[Any] | None, IGNORED] = None
    cache_control: Annotated[dict[str, Any] | None, IGNORED] = None
    prompt_cache_breakpoint: Annotated[dict[str, Any] | None, IGNORED] = None


class InputMessage(Strict):
    """One message of a conversation; an answer's own messages can be sent back as they were received."""

    nested: ClassVar[tuple[str, ...]] = ("content",)

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[InputPart], Field(min_length=1, fail_fast=True)]
    id: Text | None = None
    status: Text | None = None
    phase: Text | None = None
    arm: Text | None = None


class FunctionCall(Strict):
    """A call of a function by the model, as an answer had it."""

    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text = Field(description="The arguments as JSON.")
    id: Text | None = None
    status: Text | None = None
    arm: Text | None = None
    asynchronous: Annotated[Any, Neutral(False)] = Field(None, alias="async")
    dumped_asynchronous: Annotated[Any, Neutral(False)] = Field(None, alias="async_")
    """How OpenAI's client calls it where a program sends back what ``model_dump`` returns."""
    caller: Annotated[dict[str, Any] | None, IGNORED] = None
    namespace: Annotated[Any, Neutral()] = None


class FunctionCallOutput(Strict):
    """The result of a call."""

    nested: ClassVar[tuple[str, ...]] = ("output",)

    type: Literal["function_call_output"]
    call_id: Text
    output: Text | Annotated[list[InputPart], Field(min_length=1, fail_fast=True)]
    id: Text | None = None
    status: Text | None = None
    name: Annotated[Text | None, IGNORED] = None
    caller: Annotated[dict[str, Any] | None, IGNORED] = None
    namespace: Annotated[Any, Neutral()] = None


_TYPES = ("message", "function_call", "function_call_output")


def _kind(item: Any) -> Any:
    return item.get("type") or "message" if isinstance(item, dict) else "message"


def _known(item: Any) -> Any:
    if _kind(item) not in _TYPES:
        raise ValueError(f"type: must be {', '.join(map(repr, _TYPES[:-1]))} or {_TYPES[-1]!r}")
    return item


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    Discriminator(_kind),
    BeforeValidator(_known),
]


def check_calls(items: Sequence[InputItem]) -> None:
    """Check that every result belongs to a call before it.

    Raises:
        ValueError: one does not; the message begins with its field.
    """
    called = set()
    for place, item in enumerate(items):
        if isinstance(item, FunctionCall):
            called.add(item.call_id)
        elif isinstance(item, FunctionCallOutput) and item.call_id not in called:
            raise ValueError(f"input.{place}.call_id: no function_call before it has this call_id")


def as_messages(items: Sequence[InputItem]) -> list[Message]:
    """Return ``items`` as the messages of a chat; calls belong to the assistant's message before them."""
    messages: list[Message] = []
    for item in items:
        if isinstance(item, InputMessage):
            messages.append(Message(role=item.role, content=_text(item.content)))
        elif isinstance(item, FunctionCallOutput):
            messages.append(Message(role="tool", tool_call_id=item.call_id, content=_text(item.output)))
        else:
            function = CalledFunction(name=item.name, arguments=item.arguments)
            call = ToolCall(id=item.call_id, function=function)
            if messages and messages[-1].role == "assistant":
                before = messages[-1]
                messages[-1] = before.model_copy(update={"tool_calls": [*(before.tool_calls or ()), call]})
            else:
                messages.append(Message(role="assistant", content=None, tool_calls=[call]))
    return messages


def _text(content: str | list[InputPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
