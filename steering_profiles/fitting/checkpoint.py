"""A file with the results of a running fit, so that an interrupted fit continues where it stopped."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steering_profiles import __version__
from steering_profiles.models import LoadedModel, weights_digest
from steering_profiles.tasks.task import Task

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T")


class FitCheckpoint:
    """Results of a fit by name, in a file with one JSON object per line. Without a path no file is written.

    ``key`` identifies the fit (:func:`fit_key`). The content of a file with another key is dropped.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path = path
        self._results: dict[str, Any] = {} if path is None else _results_in(path, key)
        if path is not None:  # drops a last line that is incomplete
            lines = [{"key": key}, *({"name": name, "result": result} for name, result in self._results.items())]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def __len__(self) -> int:
        return len(self._results)

    def recall(self, name: str, make: Callable[[], _T]) -> _T:
        """Return the result called ``name``; on first use call ``make`` for it and write it to the file.

        The result must be JSON data. A result read from a file has lists in place of tuples.
        """
        if name not in self._results:
            made = make()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"name": name, "result": made}) + "\n")
            self._results[name] = made  # after writing, so that len() counts only written results
        found: _T = self._results[name]
        return found

    def discard(self) -> None:
        """Remove the file, when the fit is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def fit_key(loaded: LoadedModel, task: Task, settings: "DataclassInstance") -> str:
    """Return a hash of a fit's model (with its weights), prompts and settings, and of this package's version."""
    formats = (task.fit_formats, task.choosing_formats)
    asked = (task.train, task.dev, task.test, *formats, task.conditions, task.group_conditions, task.pairs)
    prompts = hashlib.sha256(repr(asked).encode()).hexdigest()
    model = (loaded.identity.model_dump(), weights_digest(loaded.model), str(loaded.dtype))
    facts = (__version__, model, prompts, type(settings).__name__, asdict(settings))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _results_in(path: Path, key: str) -> dict[str, Any]:
    """Return the results in the file if it has that ``key``, up to the first line that cannot be read."""
    results: dict[str, Any] = {}
    try:
        lines = path.read_text().splitlines()
        if not lines or json.loads(lines[0]) != {"key": key}:
            return {}
        for line in lines[1:]:
            entry = json.loads(line)
            results[entry["name"]] = entry["result"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return results
