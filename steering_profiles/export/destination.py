"""Folder of an export, written completely or not at all."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from steering_profiles.compatibility import check_compatibility
from steering_profiles.exportable import require_empty, unwritable
from steering_profiles.models import LoadedModel
from steering_profiles.steering import ProfileAtStrength

RECORD = "steering.json"


@dataclass(frozen=True)
class ExportRecord:
    """Description of an export, written to its folder as ``steering.json``."""

    profile: str
    content_hash: str
    strength: float
    changes: str
    """Short description of the profile's changes at strength 1."""
    base_model: str
    exported_as: Literal["weights", "lora"]
    forced: tuple[str, ...]
    """Differences between the model and the one that the profile was made for; empty unless it was forced."""

    def write(self, folder: Path) -> None:
        """Write the record to ``folder``."""
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def record_of(loaded: LoadedModel, applied: ProfileAtStrength, exported_as: Literal["weights", "lora"]) -> ExportRecord:
    """Return the record of an export."""
    return ExportRecord(
        profile=applied.profile.name,
        content_hash=applied.key[0],
        strength=applied.strength,
        changes=applied.profile.summary,
        base_model=base_model_of(loaded),
        exported_as=exported_as,
        forced=check_compatibility(applied.profile, loaded.identity).differences,
    )


def base_model_of(loaded: LoadedModel) -> str:
    """Return the public name of the model: its hub id if it came from the hub, else its name, never a path."""
    origin: str | None = loaded.model.name_or_path
    return loaded.identity.id if not origin or Path(origin).exists() else origin


@contextmanager
def new_folder(folder: Path, record: ExportRecord) -> Iterator[None]:
    """Create ``folder`` for an export and write ``record`` to it; an error inside this context restores the old state.

    Raises:
        ExportError: the folder is not empty, or cannot be written.
    """
    require_empty(folder)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        record.write(folder)
        _make_readable(folder)
    except BaseException as exc:
        with suppress(OSError):  # the original error is the one to report
            _empty(folder)
            if not existed:
                folder.rmdir()
        if isinstance(exc, OSError):
            raise unwritable(folder, exc) from exc
        raise


def _make_readable(folder: Path) -> None:
    # safetensors makes files readable by their owner only; the record has the permissions of the umask
    usual = (folder / RECORD).stat().st_mode
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(usual)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
