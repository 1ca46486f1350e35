"""The page's files, read once, by the path at which they are served."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT_PATH = "/"
FOLDER_PATH = "/page/"
"""Path below which everything but the document itself is served."""

_FOLDER = Path(__file__).parent / "static"
_DOCUMENT = "index.html"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str
    """Entity tag, a hash of the content in quotes."""


@cache
def page_files() -> Mapping[str, PageFile]:
    """Return the page's files by the path of their URL, such as ``/`` and ``/page/main.js``."""
    files = {}
    for path in sorted(_FOLDER.rglob("*")):
        media_type = _MEDIA_TYPES.get(path.suffix)
        if media_type is not None:
            name, content = path.relative_to(_FOLDER).as_posix(), path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            files[ROOT_PATH if name == _DOCUMENT else FOLDER_PATH + name] = PageFile(content, media_type, etag)
    return files
