"""Bodies of ``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, in vLLM's format."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, WrapValidator, model_validator

from steering_server.api.schemas.compatible import Object
from steering_server.api.schemas.fields import NonEmptyText, Text, integers
from steering_server.api.schemas.requests import Message
from steering_server.api.schemas.strict import Neutral, Strict
from steering_server.api.schemas.tools import MAX_TOOLS, Tool


class TokenizeBody(Strict):
    """Body of ``POST /tokenize``: a prompt or messages."""

    nested: ClassVar[tuple[str, ...]] = ("messages", "tools")

    model: NonEmptyText | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)] | None = None
    add_special_tokens: StrictBool | None = Field(
        None, description="Add the tokens that the tokenizer puts before a text. Default: for a prompt only."
    )
    add_generation_prompt: StrictBool | None = Field(
        None, description="Begin the assistant's turn. Default: unless the last message is continued."
    )
    continue_final_message: StrictBool = False
    return_token_strs: StrictBool = Field(False, description="Return each token's entry in the vocabulary too.")
    chat_template_kwargs: Object | None = Field(None, description="Variables for the model's chat template.")
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        None, description="Tools that the model is told about."
    )
    chat_template: Annotated[Any, Neutral()] = None
    media_io_kwargs: Annotated[Any, Neutral({})] = None
    mm_processor_kwargs: Annotated[Any, Neutral({})] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.prompt is None and self.messages is None:
            raise ValueError("prompt: is required, unless there are messages")
        if self.prompt is not None and self.messages is not None:
            raise ValueError("messages: cannot be sent together with prompt")
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError("continue_final_message: is true, so add_generation_prompt must be false")
        return self

    @property
    def begins_turn(self) -> bool:
        """Whether the assistant's turn begins after the messages."""
        return not self.continue_final_message if self.add_generation_prompt is None else self.add_generation_prompt


class Tokens(BaseModel):
    """Answer of ``POST /tokenize``."""

    count: int
    max_model_len: int
    """Maximum number of tokens of a prompt and its completion."""
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeBody(Strict):
    """Body of ``POST /detokenize``."""

    model: NonEmptyText | None = None
    tokens: Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(fail_fast=True), WrapValidator(integers)]


class DetokenizedText(BaseModel):
    """Answer of ``POST /detokenize``."""

    prompt: str


class TokenizerInfo(BaseModel):
    """Answer of ``GET /tokenizer_info``."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None
