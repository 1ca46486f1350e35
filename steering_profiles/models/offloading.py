"""Folders for weights that a device map keeps on disk and that the checkpoint does not hold as they are needed.

Weights in safetensors files are read where they are. Others (pickled or GGUF checkpoints, experts that are stored one
by one) are written to a folder of the model's own, which is removed with the model, or at the next loading if the
process was killed.
"""

import fcntl
import os
import secrets
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transformers import PreTrainedModel


class OffloadFolder:
    """One model's folder under ``cache``. It is locked as long as it is there, so that no other process clears it."""

    def __init__(self, cache: Path) -> None:
        self.path = cache / "offload" / secrets.token_hex(8)
        self._lock: int | None = None
        _clear(self.path.parent)
        with suppress(OSError):  # whether it is needed is found out while loading
            self.path.mkdir(parents=True)
            self._lock = _locked(self.path)

    def keep_for(self, model: PreTrainedModel) -> None:
        """Remove the folder when ``model`` is gone, or now, if it is empty."""
        if any(self.path.glob("*")):
            weakref.finalize(model, self.remove)
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextmanager
def offload_folder(cache: Path) -> Iterator[OffloadFolder]:
    """Provide a folder while a model is loaded; an error removes it.

    Raises:
        ValueError: weights are to be written there, and cannot be.
    """
    folder = OffloadFolder(cache)
    try:
        yield folder
    except BaseException as exc:
        folder.remove()
        if isinstance(exc, OSError) and _is_about(folder.path, exc.filename):
            raise ValueError(
                f"the device map puts weights on disk, and folder {folder.path.parent} cannot be written: "
                f"{exc.strerror}; choose another cache folder"
            ) from exc
        raise


def _is_about(folder: Path, path: object) -> bool:
    """Whether what went wrong with ``path`` went wrong in making ``folder`` or in writing to it."""
    return isinstance(path, str) and (folder.is_relative_to(path) or Path(path).is_relative_to(folder))


def _clear(folder: Path) -> None:
    """Remove what processes have left that ended without doing so."""
    for left in folder.glob("*"):
        with suppress(OSError):
            lock = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int:
    """Lock a folder and return what holds the lock.

    Raises:
        OSError: another process, or another model of this one, has it locked.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
