"""The grammar of the text that a request asks for."""

import json
from typing import Any

from steering_server.api.schemas.structured import (
    JsonObjectFormat,
    JsonSchemaFormat,
    StructuredFields,
    StructuredOutputs,
)
from steering_server.api.schemas.v1_responses_request import SchemaFormat, TextOptions
from steering_server.errors import RequestError
from steering_server.generation.grammars import Grammar, choice_grammar, json_grammar, regex_grammar, rules
from steering_server.generation.json_schemas import enforceable

ANY_OBJECT = {"type": "object"}


def grammar_of(body: StructuredFields) -> Grammar | None:
    """Return the grammar that ``body`` asks for, or None for any text.

    Raises:
        RequestError: a schema has a keyword that is not supported.
    """
    schema = response_schema(body)
    if schema is not None:
        return json_grammar(*schema)
    asked = body.structured_outputs
    if asked is not None:
        return _structured_outputs(asked)
    if body.guided_regex is not None:
        return regex_grammar(body.guided_regex, "guided_regex")
    if body.guided_choice is not None:
        return choice_grammar(body.guided_choice, "guided_choice")
    if body.guided_grammar is not None:
        return rules(body.guided_grammar, "guided_grammar")
    return None


def text_schema(options: TextOptions | None) -> tuple[dict[str, Any], str] | None:
    """Return what :func:`response_schema` does, for the field ``text`` of ``POST /v1/responses``.

    Raises:
        RequestError: the schema has a keyword that is not supported.
    """
    form = None if options is None else options.format
    if isinstance(form, JsonObjectFormat):
        return ANY_OBJECT, "text.format"
    if isinstance(form, SchemaFormat):
        return _schema(form.content, "text.format.schema")
    return None


def response_schema(body: StructuredFields) -> tuple[dict[str, Any], str] | None:
    """Return the enforceable schema of the text and its field, or None if it need not be JSON.

    Raises:
        RequestError: it has a keyword that is not supported.
    """
    form = body.response_format
    if isinstance(form, JsonObjectFormat):
        return ANY_OBJECT, "response_format"
    if isinstance(form, JsonSchemaFormat):
        return _schema(form.json_schema.content, "response_format.json_schema.schema")
    if body.structured_outputs is not None:
        if body.structured_outputs.content is not None:
            return _schema(body.structured_outputs.content, "structured_outputs.json")
        if body.structured_outputs.json_object:
            return ANY_OBJECT, "structured_outputs.json_object"
    if body.guided_json is not None:
        return _schema(body.guided_json, "guided_json")
    return None


def _structured_outputs(asked: StructuredOutputs) -> Grammar | None:
    if asked.regex is not None:
        return regex_grammar(asked.regex, "structured_outputs.regex")
    if asked.choice is not None:
        return choice_grammar(asked.choice, "structured_outputs.choice")
    return None if asked.grammar is None else rules(asked.grammar, "structured_outputs.grammar")


def _schema(given: dict[str, Any] | str, field: str) -> tuple[dict[str, Any], str]:
    if isinstance(given, str):
        try:
            return enforceable(json.loads(given), field), field
        except (ValueError, RecursionError):
            raise RequestError(f"{field}: is text that is not a JSON Schema", param=field) from None
    return enforceable(given, field), field
