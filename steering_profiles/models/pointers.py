"""Git LFS pointers: short text files in place of files that have not been fetched yet."""

from pathlib import Path

_BEGINNING = b"version https://git-lfs.github.com/spec/"


def require_fetched(folder: Path, *patterns: str) -> None:
    """Check that no file in ``folder`` whose name matches one of ``patterns`` is a pointer.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is a pointer; the message names it.
    """
    for file in sorted({file for pattern in patterns for file in folder.glob(pattern)}):
        if file.is_file() and is_pointer(file):
            raise ValueError(pointing(file))


def is_pointer(file: Path) -> bool:
    """Return whether ``file`` is a pointer.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as content:
        return content.read(len(_BEGINNING)) == _BEGINNING


def pointing(file: Path) -> str:
    """Return a message about a pointer, with the remedy."""
    return (
        f"{file.name} is a Git LFS pointer, not the file itself: fetch the file with `git lfs pull`, or download it "
        "again"
    )
