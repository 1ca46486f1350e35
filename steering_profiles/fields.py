"""Types of the fields of the profile format, and what all of its objects have in common."""

import json
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from steering_profiles.conditions import Condition

_T = TypeVar("_T")


def _writable(value: _T) -> _T:
    """Refuse text with lone surrogates: JSON and Python accept them, but UTF-8 cannot encode them."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"contains a lone surrogate, {exc.object[exc.start]!r}, which is not valid text") from exc
    return value


ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Text = Annotated[str, AfterValidator(_writable)]
Facts = Annotated[Mapping[str, JsonValue], AfterValidator(_writable)]
# Strict, so that text and booleans are not accepted as numbers.
Integer = Annotated[int, Field(strict=True)]
Index = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
# Omitted if None, so that profiles without a condition have the same content hash as before conditions existed.
When = Annotated[Condition | None, Field(exclude_if=lambda when: when is None)]


class Frozen(BaseModel):
    """An object of a profile, which cannot be changed and has no unknown fields."""

    # Files and HTTP answers have the keys of format version 1: the alias, where a field has one.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


def strength_text(strength: float) -> str:
    """Return the shortest text that parses to exactly this number: ``2``, ``0.5``, ``1e-07``.

    It is not rounded, so that two different strengths or scales never look the same.
    """
    return repr(float(strength)).removesuffix(".0")
