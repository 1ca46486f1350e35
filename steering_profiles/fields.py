"""Types of the fields of the profile format."""

import json
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

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
