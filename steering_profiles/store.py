"""Profiles on disk: load, save, hash, and the catalogue of those at hand. JSON and safetensors, never pickle."""

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
"""Folder of the profiles that come with the package."""

MAX_FILE_BYTES = 64 * 2**20

_PROFILE, _TENSORS = ".json", ".safetensors"
_SHOWN_DEPTH = 8  # of the path to a field at fault, which can be nested without end


def is_profile_file(path: str | Path) -> bool:
    """Whether ``path`` is named as a profile's file is: ``NAME.json``, the suffix in any case, and not hidden.

    Hidden are what editors and systems leave beside a file under a name like its own: ``._NAME.json``, ``.#NAME.json``,
    ``~$NAME.json``.
    """
    path = Path(path)
    return path.suffix.lower() == _PROFILE and not path.name.startswith((".", "~$"))


def load_profile(path: str | Path) -> Profile:
    """Read the profile at ``path``, a ``.json`` file, with the ``.safetensors`` file beside it if there is one.

    Raises:
        ProfileNotFound: there is no such file.
        ProfileFormatError: the file is not a valid profile, or one that changes nothing; the message names each field
            at fault.
    """
    path = Path(path)
    try:
        content = json.loads(_text_of(path), parse_constant=_refuse_constant, object_pairs_hook=_unrepeated)
        if not isinstance(content, dict):
            raise ProfileFormatError(f"{path}: a profile is a JSON object, this is a {type(content).__name__}")
        if "tensors" in content:
            raise ProfileFormatError(
                f"{path}: tensors: belongs in {path.with_suffix('.safetensors').name}, not in the JSON"
            )
        profile = Profile.model_validate({**content, "tensors": _tensors_beside(path)}, by_alias=True, by_name=False)
    except ValidationError as exc:
        raise ProfileFormatError(f"{path}: {'; '.join(_fault(error) for error in exc.errors())}") from exc
    except (ValueError, RecursionError) as exc:
        raise ProfileFormatError(f"{path}: {exc}") from exc
    if profile.name != path.stem:
        raise ProfileFormatError(f"{path}: name is {profile.name!r}, but the file's name says {path.stem!r}")
    if profile.changes_nothing:
        raise ProfileFormatError(
            f"{path}: changes nothing: no scale differs from 1, and the final layer stays as it is"
        )
    return profile


def find_profile(profile: str | Path, folder: str | Path | None = None) -> Profile:
    """Return the profile of that name, shipped or in ``folder``, or the one in that ``.json`` file.

    Raises:
        ProfileNotFound: there is none.
        ProfileFormatError: it is not a valid profile.
    """
    return load_profile(profile) if is_profile_file(profile) else Catalogue.open(folder)[str(profile)].profile


def save_profile(profile: Profile, folder: str | Path) -> Path:
    """Write ``profile`` to ``folder/NAME.json`` (and ``NAME.safetensors`` where it has tensors); return the JSON's
    path.

    The bytes depend on the profile alone, so the same fit writes the same file. It takes the place of a profile of that
    name whose files have their suffixes in capitals.
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
    """Return ``sha256:...`` over everything in ``profile``, tensors included: equal hashes mean equal profiles."""
    canonical = json.dumps(profile.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(canonical.encode())
    digest.update(_tensor_bytes(profile.tensors))
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True)
class Entry:
    """One profile of a catalogue: where it lies, its hash, and whether it came with the package."""

    profile: Profile
    path: Path
    content_hash: str
    shipped: bool
    replaces_shipped: bool = False
    """Whether it takes the place of one of the same name that came with the package."""


class Catalogue:
    """The profiles at hand, by name: the shipped ones and those of a folder, which win where names are equal."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(sorted(entries.items()))

    @classmethod
    def open(cls, folder: str | Path | None = None, *, shipped: bool = True) -> "Catalogue":
        """Read every profile of ``folder`` (see :func:`is_profile_file`) and, unless told otherwise, the shipped ones.

        Raises:
            ProfileNotFound: ``folder`` is not a folder, or cannot be read.
            ProfileFormatError: some file in it is not a valid profile, or two are of the same name.
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
    """Return the files beside ``path`` that have its name and ``suffix``, in any case."""
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
    return ProfileFormatError(f"{files[0].parent}: {named} are the same {what}; keep one of them")


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
    except KeyError as exc:  # a type that numpy does not have, such as BF16
        raise ProfileFormatError(f"{path}: holds a tensor of type {exc.args[0]}; allowed: float32") from exc


def _text_of(path: Path) -> str:
    content = _read(path)
    if not content:
        raise ValueError("Expecting value, but the file is empty")
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):
        raise ValueError(f"can't decode it: this is {encoding[:6].upper()}, a profile is UTF-8; save it as that")
    return content.decode("utf-8-sig")  # some editors begin a file with a mark of its encoding


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ProfileFormatError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB, which no profile is")
        return path.read_bytes()
    except OSError as exc:
        raise ProfileNotFound(f"no profile can be read at {path}: {exc.strerror}") from exc


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} is not a number that JSON has")


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)}: given more than once")
    return content


def _fault(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"][:_SHOWN_DEPTH])
    return ": ".join(filter(None, (where, error["msg"].removeprefix("Value error, "))))
