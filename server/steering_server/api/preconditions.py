"""Conditional requests: ``If-Match`` and ``If-None-Match`` on the content hash of a profile (RFC 9110, section 13)."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers

from steering_server.api.profile_objects import etag
from steering_server.api.schemas.fields import shown
from steering_server.errors import PreconditionFailed, RequestError
from steering_server.generation.registry import Precondition

_ANY = "*"
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"\s*{_TAG}\s*(?:,\s*{_TAG}\s*)*")


def precondition_of(headers: Headers) -> Precondition:
    """Return the condition that the headers of a request put on the current version of a profile.

    Raises:
        RequestError: a header is neither ``*`` nor entity tags.
    """
    match, none_match = (_tags(headers, name) for name in ("If-Match", "If-None-Match"))

    def check(content_hash: str | None) -> None:
        current = None if content_hash is None else etag(content_hash)
        now = "there is no such profile" if current is None else f"the current version is {current}"
        if match is not None and (current is None or not (_ANY in match or current in match)):
            raise PreconditionFailed(
                f"If-Match: is {shown(', '.join(match))}, but {now}", param="If-Match", code="precondition_failed"
            )
        if none_match is not None and current is not None and (_ANY in none_match or current in _weak(none_match)):
            raise PreconditionFailed(
                f"If-None-Match: is {shown(', '.join(none_match))}, but {now}",
                param="If-None-Match",
                code="precondition_failed",
            )

    return check


def _tags(headers: Headers, name: str) -> list[str] | None:
    given = headers.getlist(name)
    if not given:
        return None
    value = ", ".join(given).strip()
    if value == _ANY:
        return [_ANY]
    if not _TAGS.fullmatch(value):
        raise RequestError(
            f"{name}: is {shown(value)}; allowed: {_ANY}, or entity tags in double quotes, as in ETag", param=name
        )
    return re.findall(_TAG, value)


def _weak(tags: Sequence[str]) -> list[str]:
    """Return ``tags`` for a weak comparison, which ignores that some of them are weak."""
    return [tag.removeprefix("W/") for tag in tags]
