"""A grader that validates the answer against a JSON Schema."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer

_COLUMN = "schema"


@dataclass
class SchemaMatch:
    """Whether the answer is JSON that is valid by a schema: the grader's own, or that in the item's ``schema``.

    Without a schema any JSON will do. References to other documents are not followed.
    """

    schema: Any = None
    yes_no: ClassVar[bool] = True
    _validators: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.schema is not None:
            self._validator(self.schema)

    def require(self, item: Item) -> None:
        """Check that the item's schema, if it has one, is a schema."""
        own = self._own(item)
        if own is not None:
            self._validator(own)

    def grade(self, item: Item, answer: Answer) -> float:
        """Return 1 if the whole answer is JSON and valid."""
        try:
            value = json.loads(answer.text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return 0.0
        own = self._own(item)
        schema = own if own is not None else self.schema
        return 1.0 if schema is None else float(self._validator(schema).is_valid(value))

    def _own(self, item: Item) -> Any:
        own = item.columns.get(_COLUMN)
        if isinstance(own, str):  # as in a cell of CSV
            try:
                return json.loads(own)
            except (ValueError, RecursionError) as exc:
                raise GraderError(f"{_COLUMN}: is not JSON: {exc}") from exc
        return own

    def _validator(self, schema: Any) -> Any:
        import jsonschema_rs

        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            if not isinstance(schema, dict | bool):
                raise GraderError(f"{_COLUMN}: is {key:.60}; allowed: a JSON Schema, an object")
            try:
                self._validators[key] = jsonschema_rs.validator_for(schema, retriever=_no_document)
            except ValueError as exc:
                reason = str(exc).splitlines()[0]
                raise GraderError(f"{_COLUMN}: is not a JSON Schema: {reason}") from exc
        return self._validators[key]


def schema_match(argument: str | None) -> SchemaMatch:
    """Return the grader for a schema in the file that ``argument`` names.

    Raises:
        GraderError: the file cannot be read, or is not a JSON Schema.
    """
    if argument is None:
        return SchemaMatch()
    try:
        schema = json.loads(Path(argument).read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise GraderError(f"grader json:{argument}: the file cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise GraderError(f"grader json:{argument}: the file is not JSON: {exc}") from exc
    return SchemaMatch(schema)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _no_document(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is another document, which is not fetched")
