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

_NAME = "offload-"
_LOCKED = ".weights"


class OffloadFolder:
    """One model's folder under ``cache``. It is locked as long as it is there, so that no other process clears it."""

    def __init__(self, cache: Path) -> None:
        self.path: Path | None = None
        self.refused: OSError | None = None
        """Why there is no such folder: whether one is needed is found out while loading."""
        self._lock: int | None = None
        _clear(cache)
        made = cache / f"{_NAME}{secrets.token_hex(8)}"
        try:
            made.mkdir(parents=True)
            self._lock = _locked(made)
            self.path = made.rename(made.with_suffix(_LOCKED))  # before it has this name nobody clears it
        except OSError as exc:
            self.refused = exc

    def keep_for(self, model: PreTrainedModel) -> None:
        """Remove the folder when ``model`` is gone, or now, if it is empty."""
        if self.path is not None and any(self.path.iterdir()):
            weakref.finalize(model, self.remove)
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        if self.path is not None:
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
        if folder.refused is not None and "offload_folder" in str(exc):  # which transformers asks for, by this name
            raise ValueError(
                f"the device map puts weights on disk that are not there as they are needed, and folder {cache} cannot "
                f"be written: {folder.refused.strerror}; choose another cache folder"
            ) from exc
        raise


def _clear(cache: Path) -> None:
    """Remove what processes have left that ended without doing so."""
    for left in cache.glob(f"{_NAME}*{_LOCKED}"):
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
