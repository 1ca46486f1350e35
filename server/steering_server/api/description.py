"""The OpenAPI description, with what FastAPI does not describe by itself: events of streams, bounds of integers."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from steering_server.api.schemas.responses import ChatCompletionChunk, Completion, ErrorResponse
from steering_server.api.schemas.v1_responses_answer import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ContentPartEvent,
    OutputItemEvent,
    ResponseEvent,
    TextDeltaEvent,
    TextDoneEvent,
)

EVENTS: Mapping[str, Sequence[type[BaseModel]]] = {
    "/v1/completions": (Completion, ErrorResponse),
    "/v1/chat/completions": (ChatCompletionChunk, ErrorResponse),
    "/v1/responses": (
        ResponseEvent,
        OutputItemEvent,
        ContentPartEvent,
        TextDeltaEvent,
        TextDoneEvent,
        ArgumentsDeltaEvent,
        ArgumentsDoneEvent,
    ),
}
"""The events that each route streams, besides ``[DONE]``."""

_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_REFERENCE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> None:
    """Make the description of ``app`` include the events of :data:`EVENTS`, as ``itemSchema`` of OpenAPI 3.2."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _add_events(described)
            _restore_integer_bounds(described)
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the description


def _add_events(described: dict[str, Any]) -> None:
    models = {model for events in EVENTS.values() for model in events}
    _, definitions = models_json_schema(
        [(model, "serialization") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template=_REFERENCE,
    )
    schemas = described["components"]["schemas"]
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    for path, events in EVENTS.items():
        stream = described["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]
        stream["itemSchema"] = {
            "type": "object",
            "properties": {
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"anyOf": [{"$ref": _REFERENCE.format(model=each.__name__)} for each in events]},
                }
            },
        }


def _restore_integer_bounds(described: Any) -> None:
    """Turn the bounds of integers, which FastAPI describes as floats, into integers: a large float is not exact."""
    if isinstance(described, list):
        for each in described:
            _restore_integer_bounds(each)
    elif isinstance(described, dict):
        if described.get("type") == "integer":
            for bound in _BOUNDS & described.keys():
                described[bound] = int(described[bound])
        for each in described.values():
            _restore_integer_bounds(each)
