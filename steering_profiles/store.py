"""Profiles on disk: loading, saving, deleting, hashing, and the catalogue."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_tensors

from steering_profiles.errors import ProfileFormatError, ProfileNotFound
from steering_profiles.parsing import parse_profile
from steering_profiles.schema import Profile
from steering_profiles.writing import staged

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the profiles shipped with the package."""

MAX_FILE_BYTES = 64 * 2**20

_PROFILE, _TENSORS = ".json", ".safetensors"


def is_profile_file(path: str | Path) -> bool:
    """Return whether ``path`` has the name of a profile's file: ``NAME.json``, in any case, and not hidden.

    Hidden files are those that editors and operating systems create: ``._NAME.json``, ``.#NAME.json``, ``~$NAME.json``.
    """
    path = Path(path)
    return path.suffix.lower() == _PROFILE and not path.name.startswith((".", "~$"))


def load_profile(path: str | Path) -> Profile:
    """Load the profile at ``path``, a ``.json`` file, with the ``.safetensors`` file of the same name if there is one.

    Raises:
        ProfileNotFound: the file does not exist or cannot be read.
        ProfileFormatError: the file is not a valid profile, or has no effect; the message names each invalid field.
    """
    path = Path(path)
    content, tensors = _read(path), _tensors_beside(path)
    profile = parse_profile(
        content,
        None if tensors is None else _read(tensors),
        source=str(path),
        tensors_source=str(tensors or path.with_suffix(_TENSORS).name),
    )
    if profile.name != path.stem:
        raise ProfileFormatError(f"{path}: name is {profile.name!r}; it must be the name of the file, {path.stem!r}")
    return profile


def find_profile(profile: str | Path, folder: str | Path | None = None) -> Profile:
    """Load a profile by its name, from ``folder`` or the shipped ones, or by the path of its ``.json`` file.

    Raises:
        ProfileNotFound: there is no such profile.
        ProfileFormatError: the file is not a valid profile.
    """
    return load_profile(profile) if is_profile_file(profile) else Catalogue.open(folder)[str(profile)].profile


def save_profile(profile: Profile, folder: str | Path) -> Path:
    """Write ``profile`` to ``folder/NAME.json`` (and ``NAME.safetensors`` if it has tensors) and return the JSON path.

    The bytes depend on the profile only, so the same fit writes the same file. Existing files of the same name are
    replaced, whatever the case of their suffixes. A reader sees the old profile, the new one, or, for a moment and only
    if one of them has tensors, a pair of files that is no valid profile; it never sees parts of both as one.

    Raises:
        OSError: the folder cannot be written. What was there before is still there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile.name}{_PROFILE}"
    beside = path.with_suffix(_TENSORS)
    text = json.dumps(profile.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    with ExitStack() as stack:
        # Both are written before anything is replaced, so that a full disk changes nothing.
        tensors = stack.enter_context(staged(beside, _tensor_bytes(profile.tensors))) if profile.tensors else None
        content = stack.enter_context(staged(path, (text + "\n").encode()))
        # A profile that needs tensors is invalid without them, and one that needs none is invalid with some.
        for old in _named(path, _TENSORS):
            old.unlink(missing_ok=True)
        content.replace(path)
        for other in _named(path, _PROFILE):
            if other != path:
                other.unlink(missing_ok=True)
        if tensors is not None:
            tensors.replace(beside)
    return path


def delete_profile(name: str, folder: str | Path) -> None:
    """Delete the files of profile ``name``, which must be a valid name, from ``folder``, if there are any.

    Raises:
        OSError: a file cannot be deleted.
    """
    path = Path(folder) / f"{name}{_PROFILE}"
    for file in (*_named(path, _PROFILE), *_named(path, _TENSORS)):
        file.unlink(missing_ok=True)


def content_hash(profile: Profile) -> str:
    """Return ``sha256:...`` over the whole content of ``profile``, tensors included."""
    canonical = json.dumps(profile.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(canonical.encode())
    digest.update(_tensor_bytes(profile.tensors))
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True)
class Entry:
    """One profile of a catalogue with its path and content hash."""

    profile: Profile
    path: Path | None
    """None for a profile that is in memory only."""
    content_hash: str
    shipped: bool
    replaced: "Entry | None" = None
    """The shipped profile of the same name that this one hides, if there is one."""

    @property
    def report(self) -> Path | None:
        """The report of the fit as an HTML file beside the profile, where there is one."""
        beside = None if self.path is None else self.path.with_suffix(".html")
        return beside if beside is not None and beside.is_file() else None


class Catalogue:
    """Available profiles by name: the shipped ones and those of a folder, which take precedence."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(sorted(entries.items()))

    @classmethod
    def open(cls, folder: str | Path | None = None, *, shipped: bool = True) -> "Catalogue":
        """Load all profiles in ``folder`` (see :func:`is_profile_file`) and, if ``shipped``, the shipped ones.

        Raises:
            ProfileNotFound: ``folder`` is not a folder, or cannot be read.
            ProfileFormatError: a file in it is not a valid profile, or two have the same name.
        """
        entries = _entries_in(SHIPPED, shipped=True) if shipped else {}
        if folder is not None:
            own = _entries_in(Path(folder), shipped=False)
            entries |= {name: replace(entry, replaced=entries.get(name)) for name, entry in own.items()}
        return cls(entries)

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(self._entries) or "none"
            raise ProfileNotFound(f"no profile named {name!r}; known profiles: {known}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def profile_files(folder: Path) -> dict[str, list[Path]]:
    """Return the profile files in ``folder`` by the name that their profile must have; a name must have only one.

    Raises:
        ProfileNotFound: ``folder`` is not a folder, or cannot be read.
    """
    files: dict[str, list[Path]] = {}
    for path in _files_in(folder):
        if is_profile_file(path) and not path.is_dir():
            files.setdefault(path.stem, []).append(path)
    return files


def load_entry(files: Sequence[Path], *, shipped: bool = False) -> Entry:
    """Load the profile of ``files``, which have the same name.

    Raises:
        ProfileNotFound: the file cannot be read.
        ProfileFormatError: it is not a valid profile, or there is more than one file.
    """
    if len(files) > 1:
        raise _ambiguous("profile", files)
    (path,) = files
    profile = load_profile(path)
    return Entry(profile, path, content_hash(profile), shipped)


def _entries_in(folder: Path, *, shipped: bool) -> dict[str, Entry]:
    return {name: load_entry(files, shipped=shipped) for name, files in profile_files(folder).items()}


def _named(path: Path, suffix: str) -> list[Path]:
    """Return the files next to ``path`` with its name and ``suffix``, in any case."""
    return [each for each in _files_in(path.parent) if each.stem == path.stem and each.suffix.lower() == suffix]


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ProfileNotFound(f"profiles folder {str(folder)!r} is not a folder") from exc
    except OSError as exc:
        raise ProfileNotFound(f"profiles folder {str(folder)!r} cannot be read: {exc.strerror}") from exc


def _ambiguous(what: str, files: Sequence[Path]) -> ProfileFormatError:
    named = " and ".join(path.name for path in files)
    return ProfileFormatError(f"{files[0].parent}: {named} are files of the same {what}; keep one of them")


def _tensor_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    return save_tensors({name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in sorted(tensors)})


def _tensors_beside(profile: Path) -> Path | None:
    files = _named(profile, _TENSORS)
    if len(files) > 1:
        raise _ambiguous(f"tensors of {profile.name}", files)
    return files[0] if files else None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ProfileFormatError(
                f"{path}: the file is larger than {MAX_FILE_BYTES >> 20} MiB, the limit for profiles"
            )
        return path.read_bytes()
    except OSError as exc:
        raise ProfileNotFound(f"profile {str(path)!r} cannot be read: {exc.strerror}") from exc
