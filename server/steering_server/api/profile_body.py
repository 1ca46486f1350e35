"""The profile in the body of a request: JSON, or JSON and safetensors as the parts of a form."""

import re
from typing import Any

import anyio
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from steering_profiles.errors import ProfileFormatError
from steering_profiles.parsing import parse_profile
from steering_profiles.schema import BASELINE, Profile
from steering_profiles.store import MAX_FILE_BYTES
from steering_server.api.schemas.fields import shown
from steering_server.errors import RequestError

JSON, FORM = "application/json", "multipart/form-data"
PROFILE, TENSORS = "profile", "tensors"
"""Names of the parts of a form."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_BINARY = {"type": "string", "format": "binary"}

PROFILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"type": "object", "description": "A profile as in its file, format version 1."}},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {PROFILE: _BINARY, TENSORS: _BINARY},
                    "required": [PROFILE],
                    "additionalProperties": False,
                }
            },
        },
    }
}
"""Part of the OpenAPI description of the routes that take a profile."""


async def read_profile(request: Request, name: str) -> Profile:
    """Return the profile in the body of ``request``, which must have this ``name``. The rules are those for files.

    Raises:
        RequestError: the name or the body is invalid; the message names each invalid field.
    """
    if not _NAME.fullmatch(name) or name == BASELINE:
        raise RequestError(
            f"name: is {shown(name)}; allowed: 1 to 64 of a-z, 0-9, . _ and -, the first a letter or digit, and not "
            f"{BASELINE}",
            param="name",
        )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        content, tensors, source = await request.body(), None, "body"
    elif kind == FORM:
        content, tensors = await _parts(request)
        source = PROFILE
    else:
        raise RequestError(
            f"content-type: is {shown(kind)}; allowed: {JSON}, or {FORM} with the parts {PROFILE} and, for a profile "
            f"with tensors, {TENSORS}",
            param="content-type",
        )
    profile = await anyio.to_thread.run_sync(_parsed, content, tensors, source)
    if profile.name != name:
        raise RequestError(f"name: is {profile.name!r}; it must be the name in the path, {name!r}", param="name")
    return profile


def _parsed(content: bytes, tensors: bytes | None, source: str) -> Profile:
    try:
        return parse_profile(content, tensors, source=source, tensors_source=TENSORS)
    except ProfileFormatError as exc:
        raise RequestError(str(exc), param=exc.field or source, code="profile_invalid") from exc


async def _parts(request: Request) -> tuple[bytes, bytes | None]:
    """Return the parts of a form.

    Raises:
        RequestError: it cannot be read, or has other parts than one profile and at most one of tensors.
    """
    try:
        async with request.form(max_files=2, max_fields=2, max_part_size=MAX_FILE_BYTES) as form:
            parts = [(name, await _content(name, value)) for name, value in form.multi_items()]
    except HTTPException as exc:
        raise RequestError(f"body: is no valid form: {exc.detail}", param="body") from exc
    names = [name for name, _ in parts]
    unknown = next((name for name in names if name not in (PROFILE, TENSORS)), None)
    if unknown is not None:
        raise RequestError(f"{shown(unknown)}: unknown part; allowed: {PROFILE} and {TENSORS}", param=shown(unknown))
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise RequestError(f"{repeated}: there are two parts of this name; allowed: one", param=repeated)
    content = dict(parts)
    if PROFILE not in content:
        raise RequestError(f"{PROFILE}: this part is required", param=PROFILE)
    return content[PROFILE], content.get(TENSORS)


async def _content(name: str, value: UploadFile | str) -> bytes:
    if isinstance(value, UploadFile):
        return await value.read()
    if name == TENSORS:  # its bytes have been decoded as text
        raise RequestError(f"{TENSORS}: is a part of text; allowed: a file, which has a filename", param=TENSORS)
    return value.encode()
