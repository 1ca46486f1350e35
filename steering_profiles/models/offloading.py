"""Folders for offloaded weights: those that a device map puts on disk and that the checkpoint's files cannot serve.

Weights in safetensors files are read from there. Others (pickled or GGUF checkpoints, experts that are stored one by
one) are written to a folder per model. It is removed together with the model, or, if the process was killed, the next
time that a model is loaded.
"""

import secrets
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from transformers import PreTrainedModel

# Not "offload-": an older version removes folders of that name that it can lock, and locks them in another way.
_NAME = "offloaded-"
_WEIGHTS, _LOCK = ".weights", ".lock"


class OffloadFolder:
    """Offload folder of one model under ``cache``, locked while it exists so that no other process removes it."""

    def __init__(self, cache: Path) -> None:
        self.path: Path | None = None
        self.refused: OSError | None = None
        """Error with which no folder could be made; it matters only if loading turns out to need one."""
        _remove_abandoned(cache)
        folder = cache / f"{_NAME}{secrets.token_hex(8)}{_WEIGHTS}"
        # Not thread-local: a model may be released in another thread than the one that loaded it.
        self._lock = FileLock(folder.with_suffix(_LOCK), thread_local=False)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)  # before the folder exists, so that nobody takes it for an abandoned one
            folder.mkdir()
            self.path = folder
        except OSError as exc:
            self.refused = exc

    def keep_for(self, model: PreTrainedModel) -> None:
        """Remove the folder when ``model`` is garbage-collected, or at once if it is empty."""
        if self.path is not None and any(self.path.iterdir()):
            weakref.finalize(model, self.remove)
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the folder with its contents, and release its lock."""
        if self._lock.is_locked:
            _remove(Path(self._lock.lock_file).with_suffix(_WEIGHTS), self._lock)


@contextmanager
def offload_folder(cache: Path) -> Iterator[OffloadFolder]:
    """Provide an offload folder while a model is loaded; an error removes it.

    Raises:
        ValueError: weights have to be written to the folder, and ``cache`` cannot be written.
    """
    folder = OffloadFolder(cache)
    try:
        yield folder
    except BaseException as exc:
        folder.remove()
        if folder.refused is not None and "offload_folder" in str(exc):  # transformers names the missing argument
            raise ValueError(
                "the device map puts weights on disk that have to be converted first, and the cache folder "
                f"{str(cache)!r} cannot be written: {folder.refused.strerror}; choose another cache folder"
            ) from exc
        raise


def _remove_abandoned(cache: Path) -> None:
    """Remove the folders of processes that ended without removing them."""
    for folder in cache.glob(f"{_NAME}*{_WEIGHTS}"):
        lock = FileLock(folder.with_suffix(_LOCK))
        with suppress(OSError):  # Timeout, an OSError too: a model is using the folder
            lock.acquire(blocking=False)
            _remove(folder, lock)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
