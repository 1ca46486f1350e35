"""Where a model is: the embedded default, a GGUF file, a folder, or the hub."""

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
    """Where transformers finds a model."""

    name: str
    """What the model is called."""
    origin: str
    """Where it came from: a path, or its hub id."""
    path: str
    """What transformers is given: a folder, which may be a temporary one, or the hub id."""
    options: Mapping[str, Any]
    """What transformers must be told besides."""

    @property
    def folder(self) -> Path | None:
        """The folder that the model is in, as checkpoints of transformers are; None if it is no such folder."""
        return None if self.gguf is not None or not Path(self.path).is_dir() else Path(self.path)

    @property
    def gguf(self) -> Path | None:
        """The GGUF file that the model is; None if it is none."""
        return Path(self.path, self.options["gguf_file"]) if "gguf_file" in self.options else None

    def without_temporary(self, text: str) -> str:
        """Return ``text`` with paths in the model's own folder in place of those in a temporary one."""
        return text if self.gguf is None else text.replace(self.path, str(Path(self.origin).parent))


@contextmanager
def located(model: str, cache: Path) -> Iterator[Location]:
    """Find a model by what a user calls it, and see that what is there is one.

    Raises:
        ModelLoadError: there is nothing of that name, or it is no folder of a model.
        OSError: what is there cannot be read, or the hub refuses.
        ValueError: what is there is something else, or is not alone; the message says what to do.
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
        with gguf.alone(path) as link:
            yield Location(path.stem, str(path), str(link.parent), {"gguf_file": link.name})
    else:
        yield _on_hub(model)


def _in_folder(name: str, folder: Path) -> Location:
    require_no_adapter(str(folder), {})
    if not (folder / _CONFIG).is_file():
        raise ModelLoadError(f"model folder {str(folder)!r} holds no {_CONFIG}{_instead(folder)}")
    require_fetched(folder, _CONFIG)
    return Location(name, str(folder), str(folder), {})


def _instead(folder: Path) -> str:
    files = sorted(filter(is_named_gguf, folder.iterdir()))
    return f", but GGUF files, of which each is given by itself: {str(files[0])!r}" if files else ""


def _on_hub(model: str) -> Location:
    require_there(model)
    options = hub_options(model)
    require_no_adapter(model, options)
    return Location(model.rpartition("/")[2], model, model, options)
