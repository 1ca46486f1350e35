"""``/`` and ``/page/...``: the page's files, which need no key and tell nothing of the server."""

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from steering_server.page.files import FOLDER_PATH, ROOT_PATH, page_files

router = APIRouter(include_in_schema=False)

HEADERS = {
    # Scripts and styles come from the page's own files, and nothing from another host. No script of the page turns text
    # into HTML, so the browser is told to refuse it: what a model generates stays text.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # The files of one version belong together: a browser asks each time whether its copy is still the server's.
    "cache-control": "no-cache",
}
"""Headers of every file of the page."""


@router.get(ROOT_PATH)
@router.get(FOLDER_PATH + "{name:path}")
async def page_file(request: Request) -> Response:
    """Return a file of the page, or 304 to a browser that has it."""
    file = page_files().get(request.url.path)
    if file is None:
        raise HTTPException(404)
    headers = HEADERS | {"etag": file.etag}
    known = request.headers.get("if-none-match", "")
    if file.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
