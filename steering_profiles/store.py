"""Profiles on disk: loading, saving, hashing, and the catalogue. Files are JSON and safetensors, never pickle."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from steering_profiles.errors import ProfileFormatError, ProfileNotFound
from steering_profiles.schema import Profile
from steering_profiles.writing import write_whole

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the profiles shipped with the package."""

MAX_FILE_BYTES = 64 * 2**20

_PROFILE, _TENSORS = ".json", ".safetensors"
_JSON_TYPES = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}
_SHOWN_DEPTH = 8  # parts of the path to an invalid field, which can be nested to any depth


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
    try:
        content = json.loads(_text_of(path), parse_constant=_refuse_constant, object_pairs_hook=_unrepeated)
        if not isinstance(content, dict):
            raise ProfileFormatError(f"{path}: the content is a JSON {_JSON_TYPES[type(content)]}; allowed: an object")
        if "tensors" in content:
            raise ProfileFormatError(
                f"{path}: tensors: not allowed in the JSON file; tensors are read from "
                f"{path.with_suffix('.safetensors').name}"
            )
        profile = Profile.model_validate({**content, "tensors": _tensors_beside(path)}, by_alias=True, by_name=False)
    except ValidationError as exc:
        raise ProfileFormatError(f"{path}: {'; '.join(_describe(error) for error in exc.errors())}") from exc
    except (ValueError, RecursionError) as exc:
        raise ProfileFormatError(f"{path}: {exc}") from exc
    if profile.name != path.stem:
        raise ProfileFormatError(f"{path}: name is {profile.name!r}; it must be the name of the file, {path.stem!r}")
    if profile.changes_nothing:
        raise ProfileFormatError(
            f"{path}: the profile has no effect: all scales are 1, and there is no final-layer effect"
        )
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
    replaced, whatever the case of their suffixes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile.name}{_PROFILE}"
    beside = path.with_suffix(_TENSORS)
    for other in (*_named(path, _PROFILE), *_named(path, _TENSORS)):
        if other not in (path, beside):
            other.unlink()
    if profile.tensors:
        write_whole(beside, _tensor_bytes(profile.tensors))
    else:
        beside.unlink(missing_ok=True)
    text = json.dumps(profile.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())
    return path


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
    path: Path
    content_hash: str
    shipped: bool
    replaces_shipped: bool = False
    """Whether a shipped profile of the same name is hidden by this one."""


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
            entries |= {name: replace(entry, replaces_shipped=name in entries) for name, entry in own.items()}
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


def _entries_in(folder: Path, *, shipped: bool) -> dict[str, Entry]:
    profiles = {path: load_profile(path) for path in _profile_files(folder)}
    return {p.name: Entry(p, path, content_hash(p), shipped) for path, p in profiles.items()}


def _profile_files(folder: Path) -> list[Path]:
    files = [path for path in _files_in(folder) if is_profile_file(path) and not path.is_dir()]
    for name, times in Counter(path.stem for path in files).items():
        if times > 1:
            raise _ambiguous("profile", [path for path in files if path.stem == name])
    return files


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


def _ambiguous(what: str, files: list[Path]) -> ProfileFormatError:
    named = " and ".join(path.name for path in files)
    return ProfileFormatError(f"{files[0].parent}: {named} are files of the same {what}; keep one of them")


def _tensor_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    return save_tensors({name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in sorted(tensors)})


def _tensors_beside(profile: Path) -> dict[str, np.ndarray]:
    files = _named(profile, _TENSORS)
    if not files:
        return {}
    if len(files) > 1:
        raise _ambiguous(f"tensors of {profile.name}", files)
    (path,) = files
    try:
        return load_tensors(_read(path))
    except SafetensorError as exc:
        raise ProfileFormatError(f"{path}: not a safetensors file: {exc}") from exc
    except KeyError as exc:  # a dtype that numpy does not have, such as BF16
        raise ProfileFormatError(f"{path}: contains a tensor of type {exc.args[0]}; allowed: float32") from exc


def _text_of(path: Path) -> str:
    content = _read(path)
    if not content:
        raise ValueError("the file is empty")
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):
        raise ValueError(f"the encoding is {encoding[:6].upper()}; allowed: UTF-8")
    return content.decode("utf-8-sig")  # some editors write a byte order mark


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ProfileFormatError(
                f"{path}: the file is larger than {MAX_FILE_BYTES >> 20} MiB, the limit for profiles"
            )
        return path.read_bytes()
    except OSError as exc:
        raise ProfileNotFound(f"profile {str(path)!r} cannot be read: {exc.strerror}") from exc


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} is not a valid JSON number")


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)}: the key occurs more than once")
    return content


def _describe(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"][:_SHOWN_DEPTH])
    return ": ".join(filter(None, (where, error["msg"].removeprefix("Value error, "))))
