"""Pointers of Git LFS: the few lines that a repository holds in a file's place until the file itself is fetched."""

from pathlib import Path

_BEGINNING = b"version https://git-lfs.github.com/spec/"


def require_fetched(folder: Path, *patterns: str) -> None:
    """See that of the files of a folder none whose name matches one of ``patterns`` is but a pointer.

    Raises:
        OSError: one cannot be read.
        ValueError: one is a pointer; the message names it.
    """
    for file in sorted({file for pattern in patterns for file in folder.glob(pattern)}):
        if file.is_file() and is_pointer(file):
            raise ValueError(pointing(file))


def is_pointer(file: Path) -> bool:
    """Return whether there is a pointer in place of ``file``.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as content:
        return content.read(len(_BEGINNING)) == _BEGINNING


def pointing(file: Path) -> str:
    """Say of a pointer what it is and what to do."""
    return (
        f"{file.name} is not the file itself but a pointer of Git LFS to it: fetch it with `git lfs pull`, or download "
        "it again"
    )
