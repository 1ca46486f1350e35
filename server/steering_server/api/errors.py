"""Errors as HTTP responses in OpenAI's format: message, type, the invalid field (``param``) and a code."""

import json
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send
from structlog.contextvars import get_contextvars

from steering_profiles.errors import StrengthError
from steering_server.api.schemas.fields import shown
from steering_server.api.schemas.responses import ErrorBody, ErrorResponse
from steering_server.errors import (
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    EngineError,
    EngineStopped,
    Forbidden,
    GrammarTooComplex,
    NotFound,
    Overloaded,
    PreconditionFailed,
    RequestError,
    ServerError,
    Unauthorized,
    Unavailable,
)

REQUEST_ID = "x-request-id"
_ERROR_CODE = "error_code"
RETRY_AFTER_SECONDS = 1
_SHOWN_CHARACTERS = 80
_SUBJECT = re.compile(r"^\w+ should ")

_log = structlog.get_logger("steering_server.api")

_MEANINGS: dict[int | str, str] = {
    400: "The request is invalid; `param` names the field",
    401: "The API key is missing or wrong",
    403: "The API key does not allow this",
    404: "No such model, profile or experiment",
    408: "The request took too long",
    413: "The body is too large",
    429: "The queue is full, or a limit of the API key is used up; see Retry-After",
    "4XX": "Any other invalid request",
    500: "The server failed",
    503: "The model is being loaded, the server is stopping, or a database is away; see Retry-After",
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": meaning} for status, meaning in _MEANINGS.items()
}
"""Part of the OpenAPI description of every route that takes a body. FastAPI's own 422 is never sent."""


def install(app: FastAPI, routes: Sequence[Route]) -> None:
    """Make ``app``, which has ``routes``, answer every error in OpenAI's format."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ServerError, _answered)
    app.add_exception_handler(StrengthError, _answered)
    app.add_exception_handler(HTTPException, partial(_http, routes=tuple(routes)))
    app.add_exception_handler(Exception, _unexpected)


def error_body(exc: Exception) -> tuple[int, ErrorBody]:
    """Return the status and the body of the response to ``exc``."""
    param, code = getattr(exc, "param", None), getattr(exc, "code", None)
    if isinstance(exc, NotFound):
        return 404, ErrorBody(message=str(exc), type="not_found_error", param=param, code=code)
    if isinstance(exc, Conflict | PreconditionFailed):
        status = 409 if isinstance(exc, Conflict) else 412
        return status, ErrorBody(message=str(exc), type="invalid_request_error", param=param, code=code)
    if isinstance(exc, BodyTooLarge):
        return 413, ErrorBody(message=str(exc), type="invalid_request_error", param=param, code=code)
    if isinstance(exc, Overloaded):
        return 429, ErrorBody(message=str(exc), type="rate_limit_error", param=param, code=code)
    if isinstance(exc, Unauthorized):
        return 401, ErrorBody(message=str(exc), type="invalid_request_error", param=param, code=code)
    if isinstance(exc, Forbidden):
        return 403, ErrorBody(message=str(exc), type="permission_error", param=param, code=code)
    if isinstance(exc, RequestError | StrengthError | GrammarTooComplex):
        return 400, ErrorBody(message=str(exc), type="invalid_request_error", param=param, code=code)
    if isinstance(exc, DeadlineExceeded):
        return 408, ErrorBody(message=str(exc), type="timeout_error", param=None, code=code)
    if isinstance(exc, Unavailable | EngineStopped):
        return 503, ErrorBody(message=str(exc), type="service_unavailable_error", param=None, code=code)
    message = str(exc) if isinstance(exc, EngineError) else "the server failed on this request"
    return 500, ErrorBody(message=message, type="server_error", param=None, code=None)


def respond(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error response."""
    return _ErrorAnswer(status, body, headers)


def note_error(state: State, body: ErrorBody) -> None:
    """Keep the code of an error in the state of the request that it answers."""
    setattr(state, _ERROR_CODE, body.code or body.type)


def error_code(scope: Scope, status: int) -> str | None:
    """Return the code of the error that answers a request, or its type if it has none; None without an error."""
    if status == 500:
        return "server_error"
    code: str | None = scope.get("state", {}).get(_ERROR_CODE)
    return code


class _ErrorAnswer(JSONResponse):
    """An error response, which leaves its code in the state of the request."""

    def __init__(self, status: int, body: ErrorBody, headers: dict[str, str] | None) -> None:
        super().__init__(ErrorResponse(error=body).model_dump(), status, headers)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_error(Request(scope).state, self._body)
        await super().__call__(scope, receive, send)


def error_response(exc: Exception) -> JSONResponse:
    """Return the response to ``exc``, with the headers that say what a client can do about it."""
    return respond(*error_body(exc), _advice(exc))


def _advice(exc: Exception) -> dict[str, str]:
    if isinstance(exc, Unavailable | EngineStopped):
        # The connection is closed, so that a retry may reach another server.
        return {"Retry-After": str(RETRY_AFTER_SECONDS), "Connection": "close"}
    if isinstance(exc, Overloaded) and exc.retry_after is not None:
        return {"Retry-After": str(max(1, math.ceil(exc.retry_after)))}
    if isinstance(exc, Overloaded | DeadlineExceeded):
        return {"x-should-retry": "false"}  # OpenAI's clients would try again
    if isinstance(exc, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {}


async def _answered(request: Request, exc: Exception) -> JSONResponse:
    return error_response(exc)


async def _unexpected(request: Request, exc: Exception) -> JSONResponse:
    # Starlette answers these outside of all middleware, so the id has to be added here.
    _log.error("unexpected_error", path=shown(request.url.path), exc_info=exc)
    return respond(*error_body(exc), {REQUEST_ID: get_contextvars()["request_id"]})


async def _http(request: Request, exc: Exception, *, routes: Sequence[Route]) -> JSONResponse:
    if not isinstance(exc, HTTPException):
        raise exc
    message = {
        400: "the body could not be read as JSON",
        404: f"no such route: {request.method} {shown(request.url.path)}",
        405: f"method {request.method} is not allowed on {shown(request.url.path)}",
    }.get(exc.status_code, str(exc.detail))
    kind = "not_found_error" if exc.status_code == 404 else "invalid_request_error"
    body = ErrorBody(message=message, type=kind, param=None, code=None)
    headers = dict(exc.headers or {})
    if exc.status_code == 405:
        headers["Allow"] = _allowed_methods(request, routes)  # Starlette names those of one route
    return respond(exc.status_code, body, headers)


def _allowed_methods(request: Request, routes: Sequence[Route]) -> str:
    matching = (route.methods or () for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for methods in matching for method in methods}))


async def _invalid(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, RequestValidationError):
        raise exc
    errors = exc.errors()
    if errors and errors[0]["type"] == "json_invalid":
        reason = errors[0].get("ctx", {}).get("error", "")
        body = ErrorBody(
            message=f"the body is not valid JSON: {reason}",
            type="invalid_request_error",
            param=None,
            code="json_invalid",
        )
        return respond(400, body)
    if isinstance(exc.body, bytes):
        message = "the body must be a JSON object, sent with content-type: application/json"
        return respond(400, ErrorBody(message=message, type="invalid_request_error", param=None, code=None))
    param, message = _first_fault(errors, exc.body)
    return respond(400, ErrorBody(message=message, type="invalid_request_error", param=param, code=None))


def _first_fault(errors: Sequence[Any], body: Any) -> tuple[str | None, str]:
    """Return the first invalid field and the reason, with all alternatives of a union in one message."""
    faults = [_fault(error, body) for error in errors]
    too_long = [fault for error, fault in zip(errors, faults, strict=True) if error["type"] == "too_long"]
    param = faults[0][0] if faults else None
    if too_long and param is not None and (too_long[0][0] or "").split(".")[0] == param.split(".")[0]:
        # The list has the right type and is too long, so the other alternatives of the union do not matter.
        param, message = too_long[0]
        return param, f"{param}: {message}"
    if param is not None:
        # A union has one error per alternative; the one deepest in the value is the one that was meant.
        same_field = [field for field, _ in faults if field and field.split(".")[0] == param.split(".")[0]]
        param = max(same_field, key=lambda field: field.count("."))
    reasons = list(dict.fromkeys(reason for field, reason in faults if field == param))
    message = " or ".join(reasons) or "the request is not valid"
    if param is None:
        return None, f"body: {message}"
    value = _value_at(body, param)
    unexplained = value is _NOTHING or any(
        told in message for told in ("unknown field", "not supported", "is required")
    )
    return param, f"{param}: {message}" + ("" if unexplained else f" (given: {_described(value)})")


def _described(value: Any) -> str:
    """Return a value of a JSON body with its type, where the value alone does not show it: ``"0"`` is no number."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the string {shown(json.dumps(value[:_SHOWN_CHARACTERS]))}"
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        return f"{kind} of {len(value)}"
    return shown(value)


def _fault(error: Any, body: Any) -> tuple[str | None, str]:
    if error["loc"][0] in ("query", "path"):
        return ".".join(map(str, error["loc"][1:])), _in_plain_words(error["msg"])
    path: list[str] = []
    here = body
    for part in error["loc"][1:]:
        # A location also contains the branches of unions, which are not in the body.
        if (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        ):
            here = here[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(str(part))
    reason = _in_plain_words(error["msg"])
    if error["type"] == "value_error":
        # The messages of validators of a whole object begin with the field's name.
        field, separator, rest = reason.partition(": ")
        if separator and " " not in field:
            return ".".join([*path, field]), rest
    elif error["type"] == "missing":
        reason = "is required"
    elif error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        reason = "must be a JSON object"
    return ".".join(path) or None, reason


def _in_plain_words(message: str) -> str:
    """Return a message of pydantic without its name of the value: the field is named before it."""
    return _SUBJECT.sub("must ", message.removeprefix("Value error, ")).replace(" after validation,", ",")


_NOTHING = object()


def _value_at(body: Any, param: str) -> Any:
    for part in param.split("."):
        if isinstance(body, dict) and part in body:
            body = body[part]
        elif isinstance(body, list) and part.isdigit() and int(part) < len(body):
            body = body[int(part)]
        else:
            return _NOTHING
    return body
