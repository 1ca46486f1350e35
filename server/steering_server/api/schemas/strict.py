"""The base of request bodies, which leaves out no field in silence.

A field is one of four kinds:

 * it is implemented;
 * :class:`Neutral`: it would change the answer, and is not implemented. It is accepted at the values that change
   nothing, which clients send by default, and refused at others;
 * :data:`IGNORED`: it never changes the answer (bookkeeping). Any value is accepted, and the answer names the field;
 * unknown: refused, or left out and named in the answer, as the server's :data:`.FieldPolicy` says.
"""

import json
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from steering_server.api.schemas.fields import integral, shown
from steering_server.config import FieldPolicy

field_policy: ContextVar[FieldPolicy] = ContextVar("field_policy", default="standard")
"""The policy by which the bodies of the current request are read."""

MAX_NAMED = 32
"""Maximum number of fields that a header names."""


class Ignored:
    """Mark of a field that never changes the answer. It is ignored, and the answer names it.

    Values that are false in Python, and those ``unmentioned``, go unnamed.
    """

    def __init__(self, *unmentioned: Any) -> None:
        self.unmentioned = unmentioned


IGNORED = Ignored()


class Neutral:
    """A field that is not implemented, with the values besides null at which it changes nothing."""

    def __init__(self, *values: Any, why: str = "") -> None:
        self.values = values
        self.why = why and f": {why}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept the neutral values only."""
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the neutral values."""
        return {"enum": [None, *self.values], "description": "Not implemented; accepted where it changes nothing."}

    def _check(self, value: Any) -> Any:
        if not any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in self.values):
            allowed = " or ".join(map(json.dumps, [None, *self.values]))
            raise ValueError(f"not supported by this server{self.why}; leave it out or send {allowed}")
        return value


@dataclass(frozen=True)
class LeftOut:
    """The fields of a request that had no effect, by their paths without indices, such as ``messages.reasoning``."""

    ignored: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __add__(self, other: "LeftOut") -> "LeftOut":
        """Return the fields of both."""
        return LeftOut(self.ignored + other.ignored, self.unknown + other.unknown)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that name them: ``x-steering-ignored``, and ``warning`` for unknown fields."""
        headers = {}
        if self.ignored:
            headers["x-steering-ignored"] = _listed(self.ignored)
        if self.unknown:
            text = f"unknown fields had no effect: {_listed(self.unknown)}"
            headers["warning"] = '299 steering-server "' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return headers


class Strict(BaseModel):
    """A part of a request, or all of it. Null is the default of every field, as in OpenAI's API."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    nested: ClassVar[tuple[str, ...]] = ()
    """Fields that hold parts of this type, or lists of them."""

    _unknown: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="wrap")
    @classmethod
    def _sort_fields(cls, body: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(body, dict):
            return validate(body)
        cls._refuse_other_types(body)
        unknown = [name for name in body if name not in cls._names()]
        policy = field_policy.get()
        if unknown and policy != "lenient":
            raise ValueError(f"{shown(unknown[0])}: unknown field; {cls._hint(unknown[0])}")
        given = {name: integral(value) for name, value in body.items() if value is not None and name not in unknown}
        part = validate(given)
        part._unknown = tuple(unknown)
        if policy == "strict" and (ignored := part.without_effect()):
            raise ValueError(f"{ignored[0]}: has no effect on this server, which was started with --strict")
        return part

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe that every field with a default can be null."""
        described = handler.resolve_ref_schema(handler(schema))
        for name, field in described.get("properties", {}).items():
            if name not in described.get("required", ()) and not _allows_null(field):
                described["properties"][name] = _or_null(field)
        return described

    @classmethod
    def _refuse_other_types(cls, body: dict[str, Any]) -> None:
        """Name the type of a part that is of another type, rather than a field that only this other type has."""
        field = cls.model_fields.get("type")
        allowed = () if field is None else get_args(field.annotation)
        given = body.get("type")
        if allowed and given is not None and given not in allowed:
            raise ValueError(f"type: must be {' or '.join(map(repr, allowed))}")

    def without_effect(self) -> list[str]:
        """Return the names of this part's own fields whose values are ignored."""
        return [
            name
            for name, field in type(self).model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Ignored) and (value := getattr(self, name)) and value not in mark.unmentioned
        ]

    def left_out(self) -> LeftOut:
        """Return what was left out here and in all nested parts."""
        parts = [("", self), *self._parts()]
        return LeftOut(
            ignored=tuple(dict.fromkeys(path + name for path, part in parts for name in part.without_effect())),
            unknown=tuple(dict.fromkeys(path + name for path, part in parts for name in part._unknown)),
        )

    def _parts(self) -> "Iterator[tuple[str, Strict]]":
        for name in self.nested:
            value = getattr(self, name)
            for part in value if isinstance(value, list) else (value,):
                if isinstance(part, Strict):
                    yield f"{name}.", part
                    yield from ((f"{name}.{path}", inner) for path, inner in part._parts())

    @classmethod
    def _names(cls) -> set[str]:
        """Return the names of the fields in requests."""
        return {field.alias or name for name, field in cls.model_fields.items()}

    @classmethod
    def _hint(cls, unknown: str) -> str:
        implemented = [
            field.alias or name
            for name, field in cls.model_fields.items()
            if not any(isinstance(mark, Ignored | Neutral) for mark in field.metadata)
        ]
        close = get_close_matches(unknown, implemented, n=1)
        return f"did you mean {close[0]}?" if close else f"allowed: {', '.join(implemented)}"


def _listed(names: Iterable[str]) -> str:
    each = [shown(name) for name in names]
    more = [f"and {len(each) - MAX_NAMED} more"] if len(each) > MAX_NAMED else []
    return ", ".join(each[:MAX_NAMED] + more)


def _allows_null(field: dict[str, Any]) -> bool:
    return None in field.get("enum", ()) or any(each.get("type") == "null" for each in field.get("anyOf", ()))


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    """Return ``field`` with null allowed; what describes the field as a whole stays outside of the alternatives."""
    outer: dict[str, Any] = {key: field[key] for key in ("title", "description", "default") if key in field}
    inner = {key: value for key, value in field.items() if key not in outer}
    alternatives = inner.pop("anyOf", None) if set(inner) == {"anyOf"} else None
    return {"anyOf": [*(alternatives or [inner]), {"type": "null"}], **outer}
