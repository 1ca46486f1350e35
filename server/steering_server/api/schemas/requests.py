"""Bodies of requests that generate text.

Fields of other servers that this one does not implement are in :mod:`.compatible`.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StringConstraints, model_validator

from steering_server.api.schemas.compatible import Bookkeeping, Object, OtherChatFields, OtherServersFields
from steering_server.api.schemas.fields import (
    MAX_MESSAGES,
    Biases,
    Components,
    NonEmptyText,
    Number,
    Profiles,
    Stop,
    StopTokens,
    Strength,
    Text,
    TokenIds,
    few_items,
)
from steering_server.api.schemas.strict import IGNORED, Neutral, Strict
from steering_server.api.schemas.structured import StructuredFields
from steering_server.api.schemas.tools import ToolCall, ToolFields

MAX_ARMS = 32
MAX_ARM_NAME = 64
_ARM_NAME = rf"^[A-Za-z0-9._+@-]{{1,{MAX_ARM_NAME}}}$"
MAX_LOGPROBS = 20
"""Maximum number of likeliest tokens to ask for at each position, as in vLLM."""
FRESH_SEED = -1
"""The seed that stands for a random one, as in vLLM."""
_INT32_MAX = 2**31 - 1


class SteeringRequest(Strict):
    """The profiles to apply and their strength."""

    profile: Profiles = Field(description="A profile's name, or several.")
    strength: Strength = Field(
        1.0,
        description="0 is no steering, 1 the profile as it was fitted. The share of self-only attention is limited to "
        "0..1; the answer's `warnings` name a strength that exceeds this.",
    )
    without: Components = Field(
        default_factory=list,
        alias="except",
        description="Components to leave out of the profiles: heads as L11H2, neurons as L3N120, final_layer, "
        "final_layer.own_attention, final_layer.intercept.",
    )


class ArmRequest(SteeringRequest):
    """An arm with its own strength or label."""

    name: Annotated[str, StringConstraints(strict=True, pattern=_ARM_NAME)] | None = Field(
        None, description="The arm's label in the answer."
    )


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: StrictBool = Field(False, description="Send the number of tokens at the end.")
    continuous_usage_stats: StrictBool = Field(False, description="Send the number of tokens so far in every chunk.")
    include_obfuscation: Annotated[StrictBool | None, IGNORED] = None


class SamplingBody(Bookkeeping, OtherServersFields):
    """Fields of every request that generates text."""

    nested: ClassVar[tuple[str, ...]] = ("steering", "arms")

    model: NonEmptyText | None = Field(None, description="The served name, or name+profile. Default: the baseline.")
    temperature: Annotated[Number, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[StrictInt, Field(ge=-1, le=_INT32_MAX)] | None = Field(
        None, description="Sample from this many likeliest tokens; -1 or 0: all."
    )
    min_p: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.0, description="Minimum probability of sampled tokens, as a share of the likeliest token's."
    )
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=10)] = 1.0
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0.0
    logit_bias: Biases = Field(default_factory=dict, description="Token id to the value added to its logit.")
    min_tokens: Annotated[StrictInt, Field(ge=0)] = Field(
        0, description="Minimum number of tokens before an end token, a stop token or a stop string ends the text."
    )
    ignore_eos: StrictBool = Field(False, description="Continue after the end token.")
    stop: Stop | None = None
    stop_token_ids: StopTokens | None = Field(
        None,
        description="Tokens that end the text besides the model's end tokens, also with ignore_eos; they add none.",
    )
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None, description="The same seed gives the same answer; -1 and null stand for a random seed."
    )
    stream: StrictBool = Field(default=False, description="Answer with server-sent events.")
    steering: SteeringRequest | None = Field(None, description="Steer this request.")
    arms: Annotated[list[NonEmptyText | ArmRequest], Field(min_length=1, max_length=MAX_ARMS)] | None = Field(
        None, description="Run several arms side by side: 'baseline', 'profile', 'a+b', or objects."
    )

    experiment: NonEmptyText | None = Field(None, description="Take part in this running experiment.")

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens to generate, if given."""
        return None

    @property
    def opening(self) -> str:
        """What a conversation begins with, by which experiments can assign it: its first message of a user."""
        return ""

    @property
    def whole_prompt(self) -> str:
        """All of the prompt as text, for storing."""
        return self.opening

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class GenerationBody(SamplingBody, StructuredFields):
    """Fields of both completions and chat completions."""

    nested: ClassVar[tuple[str, ...]] = (
        *SamplingBody.nested,
        "stream_options",
        "response_format",
        "structured_outputs",
    )

    n: Annotated[StrictInt, Field(ge=1, le=64)] = 1
    stream_options: StreamOptions | None = None
    prompt_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="Return the log-probability of every token of the prompt and this many likeliest tokens."
    )

    truncate_prompt_tokens: Literal[-1] | Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Keep this many tokens of each prompt; -1: those that fit the context with max_tokens."
    )
    truncation_side: Literal["left", "right"] = Field("left", description="The side on which tokens are cut off.")
    return_token_ids: StrictBool = Field(False, description="Return the token ids of prompts and of generated tokens.")

    @model_validator(mode="after")
    def _prompt_logprobs_are_whole(self) -> Self:
        if self.prompt_logprobs is not None and self.stream:
            raise ValueError("prompt_logprobs: cannot be streamed")
        return self


class CompletionBody(GenerationBody):
    """Body of ``POST /v1/completions``."""

    prompt: Annotated[
        Text
        | Annotated[list[Text], Field(min_length=1, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)],
        BeforeValidator(few_items),
    ] = Field(description="A string, a list of strings, token ids, or a list of lists of token ids.")
    max_tokens: Annotated[StrictInt, Field(ge=0)] = 16
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: StrictBool = False
    best_of: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Draw this many completions and return the n with the highest mean log-probability."
    )
    suffix: Annotated[Any, Neutral("")] = None
    add_special_tokens: StrictBool = Field(True, description="Add what the tokenizer puts before a text.")
    prompt_embeds: Annotated[Any, Neutral([])] = None

    @property
    def opening(self) -> str:
        """The prompt, or the first of several; tokens as JSON."""
        first = self.prompt if isinstance(self.prompt, str) or isinstance(self.prompt[0], int) else self.prompt[0]
        return first if isinstance(first, str) else json.dumps(first)

    @property
    def whole_prompt(self) -> str:
        """The prompt; several, and tokens, as JSON."""
        return self.prompt if isinstance(self.prompt, str) else json.dumps(self.prompt, ensure_ascii=False)

    @property
    def picks_best(self) -> bool:
        """Whether more completions are drawn than are returned."""
        return self.best_of is not None and self.best_of > self.n

    @property
    def token_limit(self) -> int:
        """Maximum number of tokens to generate."""
        return self.max_tokens

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of: is {self.best_of}, less than n, {self.n}")
        if self.picks_best and self.stream:
            raise ValueError("best_of: cannot be streamed; the best completions are known only when all have ended")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 is allowed only with echo")
        return self


class TextPart(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text
    cache_control: Annotated[dict[str, Any] | None, IGNORED] = None


class Message(Strict):
    """One message of a conversation."""

    nested: ClassVar[tuple[str, ...]] = ("content", "tool_calls")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, fail_fast=True)] | None = Field(
        None, description="The text; only an assistant's message may have none."
    )
    name: Text | None = Field(
        default=None, description="Used if the model's chat template reads it, as are the next three."
    )
    tool_call_id: Text | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None
    # An assistant's message has these fields when a client sends it back as it was received.
    refusal: Annotated[Any, Neutral()] = None
    annotations: Annotated[list[Any] | None, IGNORED] = None
    audio: Annotated[Any, Neutral()] = None
    function_call: Annotated[Any, Neutral()] = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    cache_control: Annotated[dict[str, Any] | None, IGNORED] = None
    provider_specific_fields: Annotated[dict[str, Any] | None, IGNORED] = None

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError("content: is required; only an assistant's message may have none")
        return self

    @property
    def text(self) -> str:
        """The content as one string."""
        if self.content is None:
            return ""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    @property
    def for_template(self) -> dict[str, str]:
        """Fields besides role and content that a chat template may read."""
        given = {name: getattr(self, name) for name in ("name", "tool_call_id", "reasoning_content", "reasoning")}
        return {name: value for name, value in given.items() if value}


def opening(messages: Sequence[Message]) -> str:
    """Return the first message of a user, which stays the same as a conversation goes on; else the first message."""
    return next((message.text for message in messages if message.role == "user"), messages[0].text)


def conversation_json(messages: Sequence[Message]) -> str:
    """Return messages as JSON, by role and text."""
    return json.dumps([{"role": message.role, "content": message.text} for message in messages], ensure_ascii=False)


class ChatBody(GenerationBody, ToolFields, OtherChatFields):
    """Body of ``POST /v1/chat/completions``."""

    nested: ClassVar[tuple[str, ...]] = (*GenerationBody.nested, "messages", "tools", "tool_choice")

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="Default: the rest of the context.")
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="Same as max_tokens.")
    logprobs: StrictBool = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    add_generation_prompt: StrictBool | None = Field(
        None,
        description="Begin the assistant's turn after the messages. Default: unless the last one is continued.",
    )
    continue_final_message: StrictBool = Field(
        False, description="Continue the text of the last message instead of beginning a new turn."
    )
    add_special_tokens: StrictBool = Field(
        False, description="Add what the tokenizer puts before a text, besides the tokens of the chat template."
    )
    chat_template_kwargs: Object | None = Field(
        None, description="Variables for the model's chat template, such as enable_thinking."
    )

    functions: Annotated[Any, Neutral([])] = None
    function_call: Annotated[Any, Neutral("none", "auto")] = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs to be true")
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError(
                "continue_final_message: is true, so add_generation_prompt must be false: no new turn begins"
            )
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens: differs from max_completion_tokens; send one of them")
        return self

    @property
    def opening(self) -> str:
        """The first message of a user, or else the first message."""
        return opening(self.messages)

    @property
    def whole_prompt(self) -> str:
        """The messages as JSON."""
        return conversation_json(self.messages)

    @property
    def begins_turn(self) -> bool:
        """Whether the assistant's turn begins after the messages."""
        return not self.continue_final_message if self.add_generation_prompt is None else self.add_generation_prompt

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens to generate, if given."""
        return self.max_completion_tokens or self.max_tokens
