"""An item of a data set, and the check of what a line says of it."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

MAX_TOKENS = 1_000_000
_MAX_NAME = 200
_SHOWN = 60  # characters of an invalid value in a message

# With a length constraint pydantic rejects lone surrogates, which JSON allows and no request can carry.
_Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
_MaybeEmpty = Annotated[str, StringConstraints(strict=True, min_length=0)]
_Name = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=_MAX_NAME)]


class Unusable(Exception):
    """A line that cannot be used; the message is the reason."""


def _as_list(value: Any) -> Any:
    if isinstance(value, bool | dict):
        raise ValueError("allowed: a text, a number, or a list of them")
    return [value] if isinstance(value, str | int | float) and not isinstance(value, bool) else value


def _as_text(value: Any) -> Any:
    """Return a number as the text that it is usually written as; other values unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return str(value)


def _whole(value: Any) -> Any:
    """Return ``10.0`` as ``10``: a number in JSON, and in what spreadsheets write, may have a fraction of zero."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Answer = Annotated[_MaybeEmpty, BeforeValidator(_as_text)]


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: _MaybeEmpty


class Line(BaseModel):
    """What a line of a data set may say. Other columns are kept, and graders can read them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Annotated[_Name, BeforeValidator(_as_text)] | None = None
    prompt: _Text | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    expected: Annotated[list[_Answer], BeforeValidator(_as_list), Field(min_length=1)] | None = None
    choices: Annotated[list[Annotated[_Text, BeforeValidator(_as_text)]], Field(min_length=2, max_length=64)] | None = (
        None
    )
    tags: Annotated[list[Annotated[_Name, BeforeValidator(_as_text)]], BeforeValidator(_as_list)] | None = None
    max_tokens: Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=1, le=MAX_TOKENS)] | None = None
    grader: _Name | None = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            both = self.prompt is not None
            raise ValueError("has prompt and messages; give one of them" if both else "has no prompt and no messages")
        if self.choices and len(set(self.choices)) < len(self.choices):
            raise ValueError("choices: the same choice is given twice")
        return self


@dataclass(frozen=True)
class Item:
    """An item that every arm answers."""

    id: str
    line: int
    """Number of its line in the file, from 1; of its position for items that come from Python."""
    prompt: str | None = None
    messages: tuple[Mapping[str, str], ...] = ()
    expected: tuple[str, ...] = ()
    """The right answers; any of them will do."""
    choices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    max_tokens: int | None = None
    """Maximum number of tokens of the answer; None for that of the run."""
    grader: str | None = None
    """The item's own grader."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """All other columns of its line."""

    @property
    def asked(self) -> str:
        """Hash of what is asked: an answer belongs to an item as long as this stays the same."""
        content = [self.prompt, [dict(message) for message in self.messages], self.choices, self.max_tokens]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def question(self) -> str:
        """What is asked, as text: the prompt, or the messages with their roles."""
        if self.prompt is not None:
            return self.prompt
        return "\n".join(f"{message['role']}: {message['content']}" for message in self.messages)


def item_of(content: Mapping[str, Any], line: int) -> Item:
    """Return the item that the fields of a line describe.

    Raises:
        Unusable: a field is missing or invalid; the message names it.
    """
    try:
        said = Line.model_validate(dict(content))
    except ValidationError as exc:
        raise Unusable(_reason(exc)) from None
    tags = tuple(dict.fromkeys(said.tags or ()))
    return Item(
        id=said.id or f"line-{line}",
        line=line,
        prompt=said.prompt,
        messages=tuple(message.model_dump() for message in said.messages or ()),
        expected=tuple(said.expected or ()),
        choices=tuple(said.choices or ()),
        tags=tags,
        max_tokens=said.max_tokens,
        grader=said.grader,
        columns=said.model_extra or {},
    )


def _reason(exc: ValidationError) -> str:
    error = exc.errors()[0]
    field_name = ".".join(str(part) for part in error["loc"] if not isinstance(part, str) or part.islower())
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_unicode":
        message = "has half of a surrogate pair, which is no text"
    if not field_name:
        return message
    given = repr(error["input"])
    shown = given if len(given) <= _SHOWN else given[: _SHOWN - 1] + "…"
    return f"{field_name}: {message[:1].lower()}{message[1:]} (given: {shown})"
