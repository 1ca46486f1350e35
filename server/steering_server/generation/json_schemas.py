"""JSON Schemas whose every keyword is enforced: others are refused by name, and annotations are left out."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from steering_server.errors import RequestError

MAX_LENGTH = 128 * 1024
"""Maximum length of a schema as JSON."""
MAX_DEPTH = 32
MAX_PROPERTIES = 1000
"""Maximum number of properties in all objects of a schema."""
MAX_VALUES = 5000
"""Maximum number of values in all ``enum`` of a schema."""
_LONGEST_NAME = 80  # characters of a name in a message

_PLAIN = frozenset(
    [
        "$schema",
        "$id",
        "id",
        "$anchor",
        "$ref",
        "const",
        "enum",
        "type",
        "required",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ]
)
_SCHEMA = frozenset(("items", "additionalItems", "additionalProperties"))
_LIST = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_NAMED = frozenset(("properties", "patternProperties", "$defs", "definitions"))
_COMBINING = frozenset(("$ref", "anyOf", "oneOf", "allOf"))
_ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "example",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$comment",
        "contentMediaType",
        "contentEncoding",
        "contentSchema",
        "discriminator",
        "nullable",
    ]
)
_FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"])
_INTEGERS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
"""OpenAPI's formats of integers, as bounds."""
_FREE_FORMATS = frozenset(["float", "double", "password", "binary", "path", "file-path", "directory-path"])
"""Formats that allow every value of their type."""


def enforceable(schema: object, field: str) -> dict[str, Any]:
    """Return ``schema``, given by the request's ``field``, with nothing in it but what is enforced.

    An object that names its properties gets no others, unless ``additionalProperties`` says so or several schemas
    apply to it.

    Raises:
        RequestError: a keyword is not supported or misplaced, or the schema is too large. The message names the place.
    """
    try:
        length = len(json.dumps(schema))
    except RecursionError:
        raise RequestError(f"{field}: is nested more than {MAX_DEPTH} levels deep", param=field) from None
    if length > MAX_LENGTH:
        raise RequestError(f"{field}: has {length} characters; at most {MAX_LENGTH} are allowed", param=field)
    reader = _Reader(field)
    enforced = reader.read(schema, field, 0)
    if enforced is False:
        raise RequestError(f"{field}: is false, which allows no value", param=field)
    if not isinstance(enforced, dict):
        return {}
    if not reader.combines:
        for one in reader.objects:
            one["additionalProperties"] = False
    return enforced


class _Reader:
    """Reads one schema, and what it contains."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._properties = 0
        self._values = 0
        self.combines = False
        """Whether several schemas apply to the same value."""
        self.objects: list[dict[str, Any]] = []
        """Objects that name all of their properties and do not mention others."""

    def read(self, schema: object, place: str, depth: int) -> bool | dict[str, Any]:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            self._refuse(f"{place}: a schema must be an object, true or false")
        if depth > MAX_DEPTH:
            self._refuse(f"{place}: is nested more than {MAX_DEPTH} levels deep")
        enforced: dict[str, Any] = {}
        for keyword, value in schema.items():
            here = f"{place}.{_shown(keyword)}"
            if keyword in _SCHEMA and not isinstance(value, list):
                enforced[keyword] = self.read(value, here, depth + 1)
            elif keyword in _LIST or keyword == "items":
                if not isinstance(value, list):
                    self._refuse(f"{here}: must be a list of schemas")
                enforced[keyword] = [self.read(one, f"{here}.{index}", depth + 1) for index, one in enumerate(value)]
            elif keyword in _NAMED:
                if not isinstance(value, dict):
                    self._refuse(f"{here}: must be an object of schemas")
                if keyword in ("properties", "patternProperties"):
                    self._count(properties=len(value), place=here)
                enforced[keyword] = {
                    name: self.read(one, f"{here}.{_shown(name)}", depth + 1) for name, one in value.items()
                }
            elif keyword in _PLAIN:
                if keyword == "enum" and isinstance(value, list):
                    self._count(values=len(value), place=here)
                enforced[keyword] = value
            elif keyword == "uniqueItems" and value is False:
                pass
            elif keyword not in _ANNOTATIONS and keyword != "format" and not keyword.startswith("x-"):
                self._refuse(f"{here}: this keyword is not supported")
        if "format" in schema:
            enforced |= self._format(schema["format"], schema, f"{place}.format")
        self._check_number_of_properties(enforced, place)
        self._note(enforced)
        return enforced

    def _format(self, value: object, schema: Mapping[str, Any], place: str) -> dict[str, Any]:
        if value in _FREE_FORMATS:
            return {}
        if value in _INTEGERS:
            lowest, highest = _INTEGERS[str(value)]
            bounds = {"minimum": schema.get("minimum", lowest), "maximum": schema.get("maximum", highest)}
            try:
                return {"minimum": max(bounds["minimum"], lowest), "maximum": min(bounds["maximum"], highest)}
            except TypeError:
                self._refuse(f"{place}: needs minimum and maximum to be numbers")
        if value not in _FORMATS:
            known = ", ".join(sorted(_FORMATS | _INTEGERS.keys() | _FREE_FORMATS))
            self._refuse(f"{place}: {ascii(value)[:80]} is not supported; supported: {known}")
        return {"format": value}

    def _check_number_of_properties(self, enforced: Mapping[str, Any], place: str) -> None:
        # A name may be written twice where names are not listed, which counts once.
        least, listed = enforced.get("minProperties", 0), enforced.get("required", ())
        if isinstance(least, int) and least > max(1, len(listed) if isinstance(listed, list) else 0):
            self._refuse(f"{place}.minProperties: is only supported up to 1, or the number of required properties")

    def _note(self, enforced: dict[str, Any]) -> None:
        """Note whether the properties of this object are all that it may have."""
        combining = _COMBINING & enforced.keys()
        validating = enforced.keys() - {"$defs", "definitions", "$schema", "$id", "id", "$anchor", "type"}
        if "allOf" in combining or (combining and len(validating) > 1):
            self.combines = True
        if "properties" in enforced and not {"additionalProperties", "patternProperties"} & enforced.keys():
            named, required = enforced["properties"], enforced.get("required", ())
            if isinstance(required, list | tuple) and all(name in named for name in required):
                self.objects.append(enforced)

    def _count(self, place: str, properties: int = 0, values: int = 0) -> None:
        self._properties += properties
        self._values += values
        if self._properties > MAX_PROPERTIES:
            self._refuse(f"{place}: the schema has more than {MAX_PROPERTIES} properties")
        if self._values > MAX_VALUES:
            self._refuse(f"{place}: the schema has more than {MAX_VALUES} values to choose from")

    def _refuse(self, message: str) -> NoReturn:
        raise RequestError(message, param=self._field)


def _shown(name: str) -> str:
    """Return a name of a schema as a message shows it: an empty, long or unprintable one in quotes, and cut."""
    return name if name and name.isprintable() and len(name) <= _LONGEST_NAME else ascii(name[:_LONGEST_NAME])
