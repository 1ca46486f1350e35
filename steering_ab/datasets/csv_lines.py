"""Lines of a data set in CSV.

A cell is text. In ``messages``, and in ``expected``, ``choices`` and ``tags`` where it is a list of strings, it is
JSON; ``choices`` may also be separated by ``|`` and ``tags`` by commas or semicolons. An empty cell is a field that
is not given.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from steering_ab.datasets.dataset import Fault
from steering_ab.errors import DatasetError

_DELIMITERS = (",", ";", "\t")
_QUESTIONS = {"prompt", "messages"}
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")


def csv_lines(content: bytes, name: str) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """Yield the number of every row's first line and its fields, or what is wrong with it.

    Raises:
        DatasetError: the first line does not name the columns ``prompt`` or ``messages``.
    """
    # Bytes that are not UTF-8 are kept as surrogates, so that they spoil their own row only.
    whole = content.decode(errors="surrogateescape")
    whole = whole if "\n" in whole else whole.replace("\r", "\n")  # as very old spreadsheets end lines
    text = [line + "\n" for line in whole.split("\n")]
    start = next((index for index, line in enumerate(text) if line.strip()), 0)
    header = text[start]
    delimiter, columns = _columns(header, name)
    reader = csv.reader(text[start + 1 :], delimiter=delimiter, strict=True)
    while True:
        number = start + 2 + reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            yield number, Fault(number, _unreadable(exc))
            continue
        if any(cell.strip() for cell in row):
            yield number, _fields(row, columns, number)


def _columns(header: str, name: str) -> tuple[str, list[str]]:
    """Return the delimiter and the names of the columns, which the first line gives.

    Raises:
        DatasetError: there is no prompt among them, or a name is given twice.
    """
    for delimiter in _DELIMITERS:
        try:
            cells = next(csv.reader([header], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        columns = [cell.strip() for cell in cells]
        if _QUESTIONS & set(columns):
            named = [column for column in columns if column]
            twice = next((column for column in named if named.count(column) > 1), None)
            if twice is not None:
                raise DatasetError(f"{name}: column {twice!r} is named twice")
            return delimiter, columns
    raise DatasetError(
        f"{name}: the first line is {header.strip()[:80]!a}; in CSV it names the columns, among them prompt or messages"
    )


def _fields(row: Sequence[str], columns: Sequence[str], number: int) -> dict[str, Any] | Fault:
    while len(row) > len(columns) and not row[-1].strip():
        row = row[:-1]  # as spreadsheets write a column that was emptied
    if len(row) != len(columns):
        return Fault(number, f"has {len(row)} cells; the first line names {len(columns)} columns")
    if any(_NOT_UTF8.search(cell) for cell in row):
        return Fault(number, "has bytes that are not UTF-8; save the file as UTF-8")
    given = {column: cell for column, cell in zip(columns, row, strict=True) if column and cell.strip()}
    try:
        return {column: _value(column, cell) for column, cell in given.items()}
    except ValueError as exc:
        return Fault(number, str(exc))


def _value(column: str, cell: str) -> Any:
    """Return the value of a cell.

    Raises:
        ValueError: it is not what the column holds.
    """
    match column:
        case "messages":
            try:
                return json.loads(cell)
            except (ValueError, RecursionError) as exc:
                raise ValueError(f"messages: is not JSON: {exc}") from exc
        case "expected":
            return _strings(cell) or cell
        case "choices":
            return _strings(cell) or [choice for choice in cell.split("|") if choice]
        case "tags":
            return _strings(cell) or [tag.strip() for tag in re.split("[,;]", cell) if tag.strip()]
        case "max_tokens":
            return int(float(cell)) if re.fullmatch(r"\s*\d{1,9}(\.0*)?\s*", cell) else cell
        case "id" | "grader":
            return cell.strip()
    return cell


def _strings(cell: str) -> list[str] | None:
    """Return the list of strings that a cell has as JSON; None if it is something else."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and value and all(isinstance(part, str) for part in value) else None


def _unreadable(exc: csv.Error) -> str:
    said = str(exc)
    if "unexpected end of data" in said:
        return "begins a quoted cell that is not closed, so that the rest of the file belongs to it"
    if "field larger than" in said:
        return f"has a cell of more than {csv.field_size_limit():,} characters"
    return f"is not CSV: {said}"
