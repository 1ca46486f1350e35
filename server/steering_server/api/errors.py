"""Errors as HTTP responses in OpenAI's format: message, type, the invalid field (``param``) and a code."""

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from structlog.contextvars import get_contextvars

from steering_profiles.errors import StrengthError
from steering_server.api.schemas.requests import shown
from steering_server.api.schemas.responses import ErrorBody, ErrorResponse
from steering_server.errors import EngineError, EngineStopped, NotFound, Overloaded, RequestError, Unavailable

REQUEST_ID = "x-request-id"
RETRY_AFTER_SECONDS = 1

_log = structlog.get_logger("steering_server.api")

_MEANINGS: dict[int | str, str] = {
    400: "The request is invalid; `param` names the field",
    404: "No such model or profile",
    413: "The body is too large",
    429: "The queue is full; see Retry-After",
    "4XX": "Any other invalid request",
    500: "The server failed",
    503: "The model is being loaded, or the server is stopping; see Retry-After",
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": meaning} for status, meaning in _MEANINGS.items()
}
"""Part of the OpenAPI description of every route that takes a body. FastAPI's own 422 is never sent."""


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error in OpenAI's format."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(StrengthError, _refused)
    app.add_exception_handler(EngineError, _failed)
    app.add_exception_handler(EngineStopped, _unavailable)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def error_body(exc: Exception) -> tuple[int, ErrorBody]:
    """Return the status and the body of the response to ``exc``."""
    param, code = getattr(exc, "param", None), getattr(exc, "code", None)
    if isinstance(exc, NotFound):
        return 404, ErrorBody(message=str(exc), type="not_found_error", param=param, code=code)
    if isinstance(exc, Overloaded):
        return 429, ErrorBody(message=str(exc), type="rate_limit_error", param=param, code="queue_full")
    if isinstance(exc, RequestError | StrengthError):
        return 400, ErrorBody(message=str(exc), type="invalid_request_error", param=param, code=code)
    if isinstance(exc, Unavailable | EngineStopped):
        return 503, ErrorBody(message=str(exc), type="service_unavailable_error", param=None, code=code)
    message = str(exc) if isinstance(exc, EngineError) else "the server failed on this request"
    return 500, ErrorBody(message=message, type="server_error", param=None, code=None)


def respond(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error response."""
    return JSONResponse(ErrorResponse(error=body).model_dump(), status, headers)


def unavailable(exc: Exception) -> JSONResponse:
    """Return a 503 response. It closes the connection, so that a retry may reach another server."""
    return respond(*error_body(exc), {"Retry-After": str(RETRY_AFTER_SECONDS), "Connection": "close"})


async def _refused(request: Request, exc: Exception) -> JSONResponse:
    status, body = error_body(exc)
    return respond(status, body, {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 429 else None)


async def _failed(request: Request, exc: Exception) -> JSONResponse:
    return respond(*error_body(exc))


async def _unavailable(request: Request, exc: Exception) -> JSONResponse:
    return unavailable(exc)


async def _unexpected(request: Request, exc: Exception) -> JSONResponse:
    # Starlette answers these outside of all middleware, so the id has to be added here.
    _log.error("unexpected_error", path=shown(request.url.path), exc_info=exc)
    return respond(*error_body(exc), {REQUEST_ID: get_contextvars()["request_id"]})


async def _http(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, HTTPException):
        raise exc
    message = {
        400: "the body could not be read as JSON",
        404: f"no such route: {request.method} {shown(request.url.path)}",
        405: f"method {request.method} is not allowed on {shown(request.url.path)}",
    }.get(exc.status_code, str(exc.detail))
    kind = "not_found_error" if exc.status_code == 404 else "invalid_request_error"
    body = ErrorBody(message=message, type=kind, param=None, code=None)
    return respond(exc.status_code, body, dict(exc.headers or {}))


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
    given = "" if value is _NOTHING or "unknown field" in message or "not supported" in message else shown(value)
    return param, f"{param}: {message}" + (f" (given: {given})" if given else "")


def _fault(error: Any, body: Any) -> tuple[str | None, str]:
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
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        # The messages of validators of a whole object begin with the field's name.
        field, separator, rest = reason.partition(": ")
        if separator and " " not in field:
            return ".".join([*path, field]), rest
    elif error["type"] == "missing":
        reason = "is required"
    elif error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        reason = "must be a JSON object"
    else:
        reason = f"must be {reason}" if error["msg"].startswith("Input should be ") else reason
    return ".".join(path) or None, reason


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
