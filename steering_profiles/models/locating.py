"""Locating of models: the embedded default, GGUF files, folders and the hub."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steering_profiles.errors import ModelLoadError
from steering_profiles.models import embedded, gguf
from steering_profiles.models.adapters import require_no_adapter
from steering_profiles.models.files import no_model
from steering_profiles.models.hub import hub_options
from steering_profiles.models.pointers import require_fetched
from steering_profiles.source import EMBEDDED, is_named_gguf, require_there

_CONFIG = "config.json"


@dataclass(frozen=True)
class Location:
    """Location from which transformers loads a model."""

    name: str
    """Name of the model."""
    origin: str
    """Path or hub id that the user gave."""
    path: str
    """Argument for transformers: a folder, which may be temporary, or the hub id."""
    options: Mapping[str, Any]
    """Keyword arguments for transformers."""

    @property
    def folder(self) -> Path | None:
        """Folder of the checkpoint; None for a GGUF file or a model on the hub."""
        return None if self.gguf is not None or not Path(self.path).is_dir() else Path(self.path)

    @property
    def gguf(self) -> Path | None:
        """Path of the GGUF file; None if the model is not one."""
        return Path(self.path, self.options["gguf_file"]) if "gguf_file" in self.options else None

    def without_temporary(self, text: str) -> str:
        """Return ``text`` with the original folder in place of the temporary one."""
        return text if self.gguf is None else text.replace(self.path, str(Path(self.origin).parent))


@contextmanager
def located(model: str, cache: Path) -> Iterator[Location]:
    """Find a model by the name or path that a user gives, and check that it is a model.

    Raises:
        ModelLoadError: there is nothing of this name, or the folder is not a model's.
        OSError: it cannot be read, or the hub refuses access.
        ValueError: it is something else, or an adapter is beside it; the message says what to do.
    """
    path = Path(model).expanduser()
    if model == EMBEDDED:
        yield _in_folder(embedded.NAME, embedded.prepare(cache))
    elif path.is_dir():
        yield _in_folder(path.resolve().name, path)
    elif path.is_file():
        if not gguf.is_gguf(path):
            raise ValueError(no_model(path))
        gguf.require_model(path)
        with gguf.in_own_folder(path) as link:
            yield Location(path.stem, str(path), str(link.parent), {"gguf_file": link.name})
    else:
        yield _on_hub(model)


def _in_folder(name: str, folder: Path) -> Location:
    require_no_adapter(str(folder), {})
    if not (folder / _CONFIG).is_file():
        raise ModelLoadError(f"model folder {str(folder)!r} has no {_CONFIG}{_instead(folder)}")
    require_fetched(folder, _CONFIG)
    return Location(name, str(folder), str(folder), {})


def _instead(folder: Path) -> str:
    files = sorted(filter(is_named_gguf, folder.iterdir()))
    return f"; to load one of its GGUF files, give the path of the file: {str(files[0])!r}" if files else ""


def _on_hub(model: str) -> Location:
    require_there(model)
    options = hub_options(model)
    require_no_adapter(model, options)
    return Location(model.rpartition("/")[2], model, model, options)
