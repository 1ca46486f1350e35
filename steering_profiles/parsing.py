"""Profiles as bytes: JSON and safetensors, never pickle, with all checks that need no model."""

import json
from collections import Counter
from typing import Any

import numpy as np
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from steering_profiles.errors import ProfileFormatError
from steering_profiles.schema import Profile

_JSON_TYPES = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}
_SHOWN_DEPTH = 8  # parts of the path to an invalid field, which can be nested to any depth
_SHOWN_FAULTS = 10
_SHOWN_VALUE = 40  # characters


def parse_profile(content: bytes, tensors: bytes | None, *, source: str, tensors_source: str) -> Profile:
    """Return the profile in ``content``, JSON, and ``tensors``, the content of its safetensors file if it has one.

    ``source`` and ``tensors_source`` say in errors where both come from.

    Raises:
        ProfileFormatError: this is not a valid profile, or has no effect; the message names each invalid field.
    """
    try:
        fields = json.loads(_text(content), parse_constant=_refuse_constant, object_pairs_hook=_unrepeated)
        if not isinstance(fields, dict):
            raise ProfileFormatError(f"{source}: the content is a JSON {_JSON_TYPES[type(fields)]}; allowed: an object")
        if "tensors" in fields:
            raise ProfileFormatError(
                f"{source}: tensors: not allowed in the JSON file; tensors are read from {tensors_source}"
            )
        parsed = {} if tensors is None else _parse_tensors(tensors, tensors_source)
        profile = Profile.model_validate({**fields, "tensors": parsed}, by_alias=True, by_name=False)
    except ValidationError as exc:
        raise _format_error(exc, source) from exc
    except RecursionError as exc:
        raise ProfileFormatError(f"{source}: the JSON is nested too deeply") from exc
    except ValueError as exc:
        raise ProfileFormatError(f"{source}: {exc}") from exc
    if profile.changes_nothing:
        raise ProfileFormatError(
            f"{source}: the profile has no effect: all scales are 1, and there is no final-layer effect"
        )
    return profile


def _parse_tensors(content: bytes, source: str) -> dict[str, np.ndarray[Any, Any]]:
    try:
        return load_tensors(content)
    except SafetensorError as exc:
        raise ProfileFormatError(f"{source}: not a safetensors file: {exc}") from exc
    except KeyError as exc:  # a dtype that numpy does not have, such as BF16
        raise ProfileFormatError(f"{source}: contains a tensor of type {exc.args[0]}; allowed: float32") from exc


def _text(content: bytes) -> str:
    if not content:
        raise ValueError("the file is empty")
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):
        raise ValueError(f"the encoding is {encoding[:6].upper()}; allowed: UTF-8")
    return content.decode("utf-8-sig")  # some editors write a byte order mark


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} is not a valid JSON number")


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name}: the key occurs more than once")
    return content


def _format_error(exc: ValidationError, source: str) -> ProfileFormatError:
    faults = [fault for fault in exc.errors(include_url=False) if not _follows(fault)]
    described = [_describe(fault) for fault in faults[:_SHOWN_FAULTS]]
    if len(faults) > len(described):
        described.append(f"and {len(faults) - len(described)} more")
    return ProfileFormatError(f"{source}: {'; '.join(described)}", field=_field(faults[0]) or None)


def _follows(error: ErrorDetails) -> bool:
    """Return whether a list is called too short only because its faulty items, which are named, do not count."""
    given = error["input"]
    return error["type"] == "too_short" and isinstance(given, list) and len(given) >= error["ctx"]["min_length"]


def _describe(error: ErrorDetails) -> str:
    where = _field(error)
    given = error["input"]
    shown = f" (given: {_shown(given)})" if where and isinstance(given, str | int | float) else ""
    return ": ".join(filter(None, (where, _reason(error) + shown)))


def _reason(error: ErrorDetails) -> str:
    """Return the reason in the words of JSON, which has lists and objects."""
    context = error.get("ctx", {})
    match error["type"]:
        case "tuple_type":
            return "Input should be a valid list"
        case "too_short":
            return f"List should have at least {_items(context['min_length'])}, not {context['actual_length']}"
        case "too_long":
            return f"List should have at most {_items(context['max_length'])}, not {context['actual_length']}"
        case "model_type" | "model_attributes_type":
            return "Input should be a valid object"
        case "recursion_loop":
            return "the value is nested too deeply"
    return error["msg"].removeprefix("Value error, ")


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"


def _field(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"][:_SHOWN_DEPTH])


def _shown(value: str | float) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN_VALUE else text[: _SHOWN_VALUE - 3] + "..."
