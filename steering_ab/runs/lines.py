"""A file of JSON Lines that is written as results come, and survives that its writer is killed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from steering_ab.errors import RunError


class Lines:
    """The records of a file. Each is on disk, or with the operating system, once :meth:`append` has returned.

    A torn last line, which a killed writer leaves, is cut off when the file is opened for writing.

    Raises:
        RunError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield all whole records. A line that is none, such as a torn one, is left out."""
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as exc:
            raise RunError(f"{self.path} cannot be read: {exc.strerror}") from exc
        for line in content.split(b"\n")[:-1]:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record

    def __enter__(self) -> Self:
        try:
            file = self.path.open("ab+")
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1 if size else 0)
            file.seek(0, os.SEEK_END)
        except OSError as exc:
            raise RunError(f"{self.path} cannot be written: {exc.strerror}") from exc
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, record: dict[str, Any]) -> None:
        """Write a record.

        Raises:
            RunError: it cannot be written, such as on a full disk.
        """
        assert self._file is not None, "the file is not open"
        try:
            self._file.write(json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
        except OSError as exc:
            raise RunError(f"{self.path} cannot be written: {exc.strerror}") from exc
