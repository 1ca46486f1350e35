"""What a long fit has found so far, kept in a file, so that one that was interrupted goes on where it was."""

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
    """Results by name, one JSON line each. Without a path nothing is kept.

    A checkpoint belongs to one fit: ``key`` says which. One of another fit is begun anew.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path = path
        self._results: dict[str, Any] = {} if path is None else _results_in(path, key)
        if path is not None:  # as it could be read, without what was cut short
            lines = [{"key": key}, *({"name": name, "result": result} for name, result in self._results.items())]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def __len__(self) -> int:
        return len(self._results)

    def recall(self, name: str, make: Callable[[], _T]) -> _T:
        """Return what ``make`` returned when this was first asked for, in this run or the one before it.

        It must be something that JSON has; tuples come back as lists.
        """
        if name not in self._results:
            made = make()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"name": name, "result": made}) + "\n")
            self._results[name] = made  # now: what is counted is in the file
        found: _T = self._results[name]
        return found

    def discard(self) -> None:
        """Remove the file: the fit is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def fit_key(loaded: LoadedModel, task: Task, settings: "DataclassInstance") -> str:
    """Return what tells one fit from another: its model, weights included, prompts and settings."""
    prompts = hashlib.sha256(repr((task.train, task.dev, task.test, task.fit_formats, task.pairs)).encode()).hexdigest()
    model = (loaded.identity.model_dump(), weights_digest(loaded.model), str(loaded.dtype))
    facts = (__version__, model, prompts, type(settings).__name__, asdict(settings))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _results_in(path: Path, key: str) -> dict[str, Any]:
    """Return what can be read of a checkpoint with that key: all up to a last line that may have been cut short."""
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
