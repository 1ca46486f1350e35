"""Body of ``POST /v1/responses``."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StrictBool, StrictInt, model_validator

from steering_server.api.schemas.fields import MAX_MESSAGES, Text
from steering_server.api.schemas.requests import MAX_LOGPROBS, Message, SamplingBody, conversation_json, opening
from steering_server.api.schemas.strict import IGNORED, Neutral, Strict
from steering_server.api.schemas.structured import JsonObjectFormat, NamedSchema, TextFormat
from steering_server.api.schemas.v1_responses_input import InputItem, as_messages, check_calls
from steering_server.api.schemas.v1_responses_tools import ResponsesToolFields

LOGPROBS = "message.output_text.logprobs"
"""The entry of ``include`` that asks for log-probabilities."""

NOTHING_STORED = "no response is stored; send the whole conversation as input"


class SchemaFormat(NamedSchema):
    """A JSON value that is valid under a schema."""

    type: Literal["json_schema"]


class TextOptions(Strict):
    """The form of the answer."""

    nested: ClassVar[tuple[str, ...]] = ("format",)

    format: Annotated[TextFormat | JsonObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Annotated[Any, Neutral("medium")] = None


class ReasoningOptions(Strict):
    """Reasoning, which no answer of this server has."""

    effort: Annotated[Any, Neutral("none")] = None
    summary: Annotated[Text | None, IGNORED] = None
    generate_summary: Annotated[Text | None, IGNORED] = None


class ResponsesStreamOptions(Strict):
    """Options of a stream."""

    include_obfuscation: Annotated[StrictBool | None, IGNORED] = None


class ResponsesBody(SamplingBody, ResponsesToolFields):
    """Body of ``POST /v1/responses``."""

    nested: ClassVar[tuple[str, ...]] = (
        *SamplingBody.nested,
        "input",
        "text",
        "reasoning",
        "stream_options",
        "tools",
        "tool_choice",
    )

    input: Text | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] = Field(
        description="A user's message, or a conversation with calls of functions and their results."
    )
    instructions: Text | None = Field(None, description="A system message before the input.")
    max_output_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Default: the rest of the context."
    )
    metadata: dict[str, Any] | None = Field(None, description="Returned with the answer.")
    include: Annotated[list[Text], Field(fail_fast=True)] | None = Field(
        None, description=f"{LOGPROBS} asks for log-probabilities; other entries ask for what no answer has."
    )
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    stream_options: ResponsesStreamOptions | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    # what this server does not do
    truncate_prompt_tokens: Annotated[Any, Neutral()] = None
    return_token_ids: Annotated[Any, Neutral(False)] = None
    previous_response_id: Annotated[Any, Neutral(why=NOTHING_STORED)] = None
    conversation: Annotated[Any, Neutral(why=NOTHING_STORED)] = None
    background: Annotated[Any, Neutral(False)] = None
    truncation: Annotated[Any, Neutral("disabled")] = None
    prompt: Annotated[Any, Neutral()] = None
    context_management: Annotated[Any, Neutral([])] = None
    image: Annotated[Any, Neutral()] = None
    access_programs: Annotated[Any, Neutral()] = None

    @model_validator(mode="after")
    def _results_have_calls(self) -> Self:
        if not isinstance(self.input, str):
            check_calls(self.input)
        return self

    @property
    def messages(self) -> list[Message]:
        """The conversation."""
        given = [Message(role="user", content=self.input)] if isinstance(self.input, str) else as_messages(self.input)
        system = [] if self.instructions is None else [Message(role="system", content=self.instructions)]
        return [*system, *given]

    @property
    def opening(self) -> str:
        """The input, or its first message of a user."""
        return opening(self.messages)

    @property
    def whole_prompt(self) -> str:
        """The conversation as JSON."""
        return conversation_json(self.messages)

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens to generate, if given."""
        return self.max_output_tokens

    @property
    def logprobs(self) -> int | None:
        """Number of likeliest tokens to list with each token; None for no log-probabilities."""
        return self.top_logprobs or 0 if self.top_logprobs or LOGPROBS in (self.include or ()) else None
