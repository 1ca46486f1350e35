"""Request bodies. They are strict: no field is ignored, and no value is converted to another type.

Fields of OpenAI's API that this server does not implement are accepted at their neutral values, which official clients
may send; other values are refused.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    model_validator,
)

from steering_profiles.schema import MAX_STRENGTH

MAX_ARMS = 8
MAX_PROMPTS = 64
MAX_SEQUENCES = 128
"""Maximum number of sequences of one request: prompts times arms times n."""
MAX_BIASES = 1024
FRESH_SEED = -1
"""The seed that stands for a random one, as in vLLM."""
MAX_STOPS = 64
_INT32_MAX = 2**31 - 1


def _number(value: Any) -> Any:
    """Accept an integer for a float, but neither a string nor a boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("Input should be a valid number")
    return value


def shown(value: Any, most: int = 80) -> str:
    """Return ``value`` in printable ASCII, at most ``most`` characters long, for use in a message."""
    plain = isinstance(value, str) and value and value.isascii() and value.isprintable()
    text = value if plain else ascii(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def _few_enough(biases: Any) -> Any:
    """Check the number before the entries: validating millions of invalid ones would block the server."""
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise ValueError(f"must have at most {MAX_BIASES} entries, not {len(biases)}")
    return biases


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate, which is not a character") from None
    return text


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
_whole_characters = BeforeValidator(lambda value: _encodable(value) if isinstance(value, str) else value)
Text = Annotated[str, Field(strict=True), _whole_characters]
NonEmptyText = Annotated[str, Field(strict=True, min_length=1), _whole_characters]
TokenId = Annotated[StrictInt, Field(ge=0)]
# Lists fail at the first invalid value: a body can have millions, and the answer names only one.
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
TokenKey = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9]{1,9}$")]
Strength = Annotated[Number, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH), AfterValidator(lambda value: value + 0.0)]
"""A strength; -0.0 becomes 0."""
Stop = NonEmptyText | Annotated[list[NonEmptyText], Field(max_length=MAX_STOPS, fail_fast=True)]
Profiles = NonEmptyText | Annotated[list[NonEmptyText], Field(min_length=1, max_length=16, fail_fast=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields of OpenAI that this server does not implement, with their neutral values besides null."""

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, body: Any) -> Any:
        """Treat null as the default, as OpenAI does, and refuse unknown fields."""
        if not isinstance(body, dict):
            return body
        unknown = next((name for name in body if name not in cls.model_fields and name not in cls.neutral), None)
        if unknown is not None:
            raise ValueError(f"{shown(unknown)}: unknown field; allowed: {', '.join(cls.model_fields)}")
        given = {name: value for name, value in body.items() if value is not None}
        for name, neutral in cls.neutral.items():
            if name in given:
                value = given.pop(name)
                if not any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in neutral):
                    allowed = " or ".join(["null", *map(repr, neutral)])
                    raise ValueError(f"{name}: not supported by this server; leave it out or send {allowed}")
        return given


class SteeringRequest(_Strict):
    """The profiles to apply and their strength."""

    profile: Profiles = Field(description="A profile's name, or several.")
    strength: Strength = Field(
        1.0,
        description="0 is no steering, 1 the profile as it was fitted. The share of self-only attention is limited to "
        "0..1; the answer's `warnings` name a strength that exceeds this.",
    )


class ArmRequest(SteeringRequest):
    """An arm with its own strength or label."""

    name: Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9._+@-]{1,64}$")] | None = Field(
        None, description="The arm's label in the answer."
    )


class StreamOptions(_Strict):
    """Options of a stream."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool | None = None


class GenerationBody(_Strict):
    """Fields of both completions and chat completions."""

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
    logit_bias: Annotated[
        dict[TokenKey, Annotated[Number, Field(ge=-100, le=100)]],
        BeforeValidator(_few_enough),
        Field(max_length=MAX_BIASES),
    ] = Field(default_factory=dict, description="Token id to the value added to its logit.")
    min_tokens: Annotated[StrictInt, Field(ge=0)] = Field(
        0, description="Minimum number of tokens before an end token or a stop string ends the text."
    )
    ignore_eos: StrictBool = Field(False, description="Continue after the end token.")
    n: Annotated[StrictInt, Field(ge=1, le=64)] = 1
    stop: Stop | None = None
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None, description="The same seed gives the same answer; -1 and null stand for a random seed."
    )
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    user: Text | None = Field(None, description="Accepted for compatibility with OpenAI; not used.")
    steering: SteeringRequest | None = Field(None, description="Steer this request.")
    arms: Annotated[list[NonEmptyText | ArmRequest], Field(min_length=1, max_length=MAX_ARMS)] | None = Field(
        None, description="Run several arms side by side: 'baseline', 'profile', 'a+b', or objects."
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class CompletionBody(GenerationBody):
    """Body of ``POST /v1/completions``."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    ) = Field(description="A string, a list of strings, token ids, or a list of lists of token ids.")
    max_tokens: Annotated[StrictInt, Field(ge=0)] = 16
    logprobs: Annotated[StrictInt, Field(ge=0, le=5)] | None = None
    echo: StrictBool = False
    best_of: StrictInt | None = Field(None, description="Accepted only if it equals n.")

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"suffix": ("",)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of: not supported by this server; leave it out or send null or the value of n")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 is allowed only with echo")
        return self


class TextPart(_Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class Message(_Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, fail_fast=True)]
    name: Text | None = None

    # An assistant's message has these fields when a client sends it back as it was received.
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "refusal": (),
        "annotations": ([],),
        "audio": (),
        "function_call": (),
        "tool_calls": ([],),
    }

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(GenerationBody):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="Default: the rest of the context.")
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="Same as max_tokens.")
    logprobs: StrictBool = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
    add_generation_prompt: StrictBool | None = Field(
        None,
        description="Begin the assistant's turn after the messages. Default: unless the last one is continued.",
    )
    continue_final_message: StrictBool = Field(
        False, description="Continue the text of the last message instead of beginning a new turn."
    )

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "web_search_options": (),
        "service_tier": ("auto", "default"),
        "safety_identifier": (),
        "prompt_cache_key": (),
        "store": (False,),
        "metadata": ({},),
    }

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs to be true")
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError(
                "continue_final_message: is true, so add_generation_prompt must be false: no new turn begins"
            )
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens: differs from max_completion_tokens; send one of them")
        return self

    @property
    def begins_turn(self) -> bool:
        """Whether the assistant's turn begins after the messages."""
        return not self.continue_final_message if self.add_generation_prompt is None else self.add_generation_prompt

    @property
    def token_limit(self) -> int | None:
        """Maximum number of tokens to generate, if given."""
        return self.max_completion_tokens or self.max_tokens
