"""Types of the fields of requests. No value is converted to another type: a number as text is refused."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictInt,
    StringConstraints,
    ValidationError,
    WrapValidator,
)

from steering_profiles.leaving_out import NAME_PATTERN
from steering_profiles.schema import MAX_STRENGTH

MAX_BIASES = 1024
MAX_STOPS = 64
MAX_STOP_TOKENS = 1024
MAX_ITEMS = 2**20
"""Maximum number of items of a list, those of lists in it included."""
MAX_MESSAGES = 2**14
MAX_LEFT_OUT = 4096
"""Maximum number of components that are left out of an arm's profiles."""
_LARGEST_EXACT = 2**53
"""Largest integer up to which a float holds every integer."""


def shown(value: Any, most: int = 80) -> str:
    """Return ``value`` in printable ASCII, at most ``most`` characters long, for use in a message."""
    plain = isinstance(value, str) and value and value.isascii() and value.isprintable()
    text = value if plain else ascii(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def integral(value: Any) -> Any:
    """Return 2 for 2.0, since both are the same number in JSON, and any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT else value


def integers(values: Any, validate: Callable[[Any], Any]) -> Any:
    """Convert numbers such as 2.0 only if there are any: a list can have millions of integers."""
    try:
        return validate(values)
    except ValidationError:
        if not isinstance(values, list) or not any(isinstance(value, float) for value in values):
            raise
        return validate([integral(value) for value in values])


def _few_enough(biases: Any) -> Any:
    """Check the number before the entries: validating millions of invalid ones would block the server."""
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise ValueError(f"must have at most {MAX_BIASES} entries, not {len(biases)}")
    return biases


def few_items(given: Any) -> Any:
    """Check the number of a list's items, and of theirs, before each of them: validating millions would block the
    server."""
    if isinstance(given, list):
        count = len(given) + sum(len(one) for one in given if isinstance(one, list))
        if count > MAX_ITEMS:
            raise ValueError(f"must have at most {MAX_ITEMS} items, not {count}")
    return given


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate, which is not a character") from None
    return text


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number, also one without a fraction; neither a string nor a boolean."""
_whole_characters = BeforeValidator(lambda value: _encodable(value) if isinstance(value, str) else value)
Text = Annotated[str, Field(strict=True), _whole_characters]
NonEmptyText = Annotated[str, Field(strict=True, min_length=1), _whole_characters]
# Lists fail at the first invalid value: a body can have millions, and the answer names only one.
TokenIds = Annotated[
    list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1, fail_fast=True), WrapValidator(integers)
]
StopTokens = Annotated[
    list[Annotated[StrictInt, Field(ge=0)]],
    Field(max_length=MAX_STOP_TOKENS, fail_fast=True),
    BeforeValidator(few_items),
    WrapValidator(integers),
]
TokenKey = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9]{1,9}$")]
Biases = Annotated[
    dict[TokenKey, Annotated[Number, Field(ge=-100, le=100)]],
    BeforeValidator(_few_enough),
    Field(json_schema_extra={"additionalProperties": False, "maxProperties": MAX_BIASES}),
]
Strength = Annotated[Number, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH), AfterValidator(lambda value: value + 0.0)]
"""A strength; -0.0 becomes 0."""
Stop = NonEmptyText | Annotated[list[NonEmptyText], Field(max_length=MAX_STOPS, fail_fast=True)]
Profiles = NonEmptyText | Annotated[list[NonEmptyText], Field(min_length=1, max_length=16, fail_fast=True)]
Components = Annotated[
    list[Annotated[str, Field(strict=True, json_schema_extra={"pattern": NAME_PATTERN})]],
    Field(max_length=MAX_LEFT_OUT, fail_fast=True),
    BeforeValidator(few_items),
]
"""Names of components; what is wrong with one is said where the profile is known."""
