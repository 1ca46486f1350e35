"""The folder that an export is written to: its own, whole or not at all."""

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
    """What an export carries, written beside it as ``steering.json``."""

    profile: str
    content_hash: str
    strength: float
    changes: str
    """What the profile changes at strength 1, in a few words."""
    base_model: str
    exported_as: Literal["weights", "lora"]
    forced: tuple[str, ...]
    """In what the model differs from the one that the profile was made for; empty unless it was forced."""

    def write(self, folder: Path) -> None:
        """Write this to ``folder``."""
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
    """Return what others know the model by: its hub id if it came from the hub, else its name, never a path."""
    origin: str | None = loaded.model.name_or_path
    return loaded.identity.id if not origin or Path(origin).exists() else origin


@contextmanager
def new_folder(folder: Path, record: ExportRecord) -> Iterator[None]:
    """Make ``folder`` to write into and put ``record`` beside what is written; leave it as it was if that fails.

    Raises:
        ExportError: something is in it already, or it cannot be written.
    """
    require_empty(folder)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        record.write(folder)
        _make_readable(folder)
    except BaseException as exc:
        with suppress(OSError):  # the first error is the one to tell
            _empty(folder)
            if not existed:
                folder.rmdir()
        if isinstance(exc, OSError):
            raise unwritable(folder, exc) from exc
        raise


def _make_readable(folder: Path) -> None:
    # safetensors lets none but its maker read a file; the record has the permissions that are usual here
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
