"""Checks that a command can write its results, made before the minutes of work that give them."""

import tempfile
from pathlib import Path

from steering_server.errors import ConfigError


def require_writable_folder(option: str, folder: Path) -> None:
    """Create ``folder`` if it does not exist, and check that files can be created in it.

    Raises:
        ConfigError: the folder cannot be written to; the message names the option and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_writing(folder)
    except OSError as exc:
        raise ConfigError(f"{option} is {str(folder)!r}, a folder that cannot be written to: {exc.strerror}") from exc


def require_writable_file(option: str, file: Path) -> None:
    """Check that ``file`` can be created or overwritten.

    Raises:
        ConfigError: the file cannot be written; the message names the option and the reason.
    """
    if file.is_dir():
        raise ConfigError(f"{option} is {str(file)!r}, which is a folder; give the path of a file")
    try:
        _try_writing(file.parent)
    except OSError as exc:
        raise ConfigError(f"{option} is {str(file)!r}, which cannot be written: {exc.strerror}") from exc


def _try_writing(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass
