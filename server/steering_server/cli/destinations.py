"""Where a command writes, checked before the minutes of work whose result goes there."""

import tempfile
from pathlib import Path

from steering_server.errors import ConfigError


def require_writable_folder(option: str, folder: Path) -> None:
    """Make ``folder`` if it is not there, and see that files can be made in it.

    Raises:
        ConfigError: they cannot; the message names the option and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_writing(folder)
    except OSError as exc:
        raise ConfigError(f"{option} is {str(folder)!r}, where nothing can be written: {exc.strerror}") from exc


def require_writable_file(option: str, file: Path) -> None:
    """See that ``file`` can be made, or be written over.

    Raises:
        ConfigError: it cannot; the message names the option and the reason.
    """
    if file.is_dir():
        raise ConfigError(f"{option} is {str(file)!r}, which is a folder; it takes a file")
    try:
        _try_writing(file.parent)
    except OSError as exc:
        raise ConfigError(f"{option} is {str(file)!r}, which cannot be written: {exc.strerror}") from exc


def _try_writing(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass
