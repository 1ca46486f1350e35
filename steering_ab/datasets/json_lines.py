"""Lines of a data set in JSON Lines."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from steering_ab.datasets.dataset import Fault

MAX_LINE_BYTES = 4 * 2**20


def json_lines(content: bytes) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """Yield the number of every line that is not blank, from 1, and its object or what is wrong with it."""
    # Split at line feeds alone: JSON may hold other characters that str.splitlines takes for line ends.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, _object(number, line.strip())


def _object(number: int, line: bytes) -> dict[str, Any] | Fault:
    if len(line) > MAX_LINE_BYTES:
        return Fault(number, f"has {len(line) / 2**20:.1f} MiB; allowed: {MAX_LINE_BYTES // 2**20} MiB")
    try:
        text = line.decode()
    except UnicodeDecodeError as exc:
        return Fault(
            number, f"byte {exc.start + 1} is 0x{line[exc.start]:02x}, which is not UTF-8; save the file as UTF-8"
        )
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as exc:
        return Fault(number, f"is not JSON: {exc.msg} at character {exc.pos + 1}")
    except (ValueError, RecursionError) as exc:
        return Fault(number, "is nested too deeply" if isinstance(exc, RecursionError) else f"is not JSON: {exc}")
    if not isinstance(value, dict):
        return Fault(number, f'is {text[:40]}; allowed: an object such as {{"prompt": "...", "expected": "..."}}')
    # A field that is null is a field that is not given.
    return {name: field for name, field in value.items() if field is not None}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return fields
