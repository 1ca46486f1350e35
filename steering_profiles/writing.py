"""Atomic writing of files."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    Raises:
        OSError: the file cannot be written.
    """
    with staged(path, content) as complete:
        complete.replace(path)


@contextmanager
def staged(path: Path, content: bytes) -> Iterator[Path]:
    """Write ``content`` to a hidden file beside ``path`` and yield it, to be renamed to ``path``.

    The hidden file is deleted afterwards unless it was renamed.

    Raises:
        OSError: the file cannot be written.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as partial:
        complete = Path(partial.name)
        try:
            partial.write(content)
            partial.flush()
            os.fsync(partial.fileno())  # else a rename may reach the disk before the content does
            partial.close()
            complete.chmod(0o644)
            yield complete
        finally:
            complete.unlink(missing_ok=True)
