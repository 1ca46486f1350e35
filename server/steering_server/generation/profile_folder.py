"""The operator's folder of profiles while a server runs: read again when it changes, and written by requests.

A file that cannot be used is a fault, not an error: the version of the profile that was read before stays.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from steering_profiles.errors import ProfileError, ProfileFormatError
from steering_profiles.schema import Profile
from steering_profiles.store import delete_profile, load_entry, profile_files, save_profile
from steering_profiles.writing import write_whole
from steering_server.generation.profiles import CheckProfile, ProfileCard

DISABLED = ".disabled.json"
"""File with the names of disabled profiles, hidden so that it is not taken for a profile."""

_READ = (".json", ".safetensors")

_FileStamp = tuple[str, int, int, int]
Stamps = Mapping[str, frozenset[_FileStamp]]
"""Name of a profile -> file name, time of change, size and inode of each of its files."""


@dataclass(frozen=True)
class ProfileFault:
    """A file of the folder that cannot be used."""

    file: str | None
    """Name of the file, without its folder; None where it is the folder itself."""
    message: str
    kept: str | None
    """Content hash of the version that stays in use; None if there is none."""


@dataclass(frozen=True)
class FolderContent:
    """Content of the folder: the operator's profiles, disabled names, and faults by profile name."""

    cards: Mapping[str, ProfileCard]
    disabled: frozenset[str]
    faults: Mapping[str, ProfileFault]


class ProfileFolder:
    """A folder that is read again. Not thread-safe."""

    def __init__(self, path: Path, check: CheckProfile) -> None:
        """Take ``path``; nothing is read yet."""
        self.path = path
        self._check = check
        self._read: Stamps = {}
        self._seen: Stamps = {}
        self._content = FolderContent({}, frozenset(), {})

    def has_settled(self) -> bool:
        """Return whether the folder has changed since it was read, and not since the last call.

        A file that is still being written is so read once, when it is complete.
        """
        stamps = self._stamps()
        settled = stamps == self._seen
        self._seen = stamps
        return settled and stamps != self._read

    def read(self, known: Mapping[str, ProfileCard], *, strict: bool = False) -> FolderContent:
        """Read what has changed; ``known`` are the profiles read so far, which stay where a file cannot be used.

        Raises:
            ProfileError: a file cannot be used, or the folder not be read; only if ``strict``.
        """
        stamps = self._stamps()  # first, so that a change while it is read is noticed later
        faults: dict[str, ProfileFault] = {}
        cards: dict[str, ProfileCard] = {}
        try:
            files = profile_files(self.path)
        except ProfileError as exc:
            if strict:
                raise
            fault = ProfileFault(None, self._local(str(exc)), None)
            return self._keep(FolderContent(dict(known), self._content.disabled, {"": fault}), stamps)
        for name, paths in files.items():
            unchanged = stamps.get(name) == self._read.get(name)
            if unchanged and name in known and name not in self._content.faults:
                cards[name] = known[name]
                continue
            try:
                cards[name] = self._check(load_entry(paths))
            except ProfileError as exc:
                if strict:
                    raise
                if name in known:
                    cards[name] = known[name]
                kept = known[name].entry.content_hash if name in known else None
                faults[name] = ProfileFault(paths[0].name, self._local(str(exc)), kept)
        disabled, reason = self._disabled_names()
        if reason is not None:
            if strict:
                raise ProfileFormatError(f"{self.path / DISABLED}: {reason}")
            faults[DISABLED] = ProfileFault(DISABLED, reason, None)
        return self._keep(FolderContent(cards, disabled, faults), stamps)

    def write(self, profile: Profile) -> None:
        """Write ``profile`` in place of the one of its name, if there is one.

        Raises:
            OSError: it cannot be written.
        """
        save_profile(profile, self.path)

    def delete(self, name: str) -> None:
        """Delete the files of profile ``name``.

        Raises:
            OSError: they cannot be deleted.
        """
        delete_profile(name, self.path)

    def write_disabled(self, names: Iterable[str]) -> None:
        """Write the names of disabled profiles.

        Raises:
            OSError: they cannot be written.
        """
        names = frozenset(names)
        write_whole(self.path / DISABLED, json.dumps(sorted(names)).encode())
        self._content = replace(self._content, disabled=names)

    def _disabled_names(self) -> tuple[frozenset[str], str | None]:
        """Return the disabled names, those read before if the file cannot be used, and the reason why it cannot."""
        before = self._content.disabled
        try:
            names = json.loads((self.path / DISABLED).read_bytes())
        except FileNotFoundError:
            return frozenset(), None
        except OSError as exc:
            return before, f"cannot be read: {exc.strerror}"
        except RecursionError:
            return before, "is nested too deeply"
        except ValueError as exc:
            return before, f"is not JSON: {exc}"
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            return before, "must be a JSON list of names"
        return frozenset(names), None

    def _keep(self, content: FolderContent, stamps: Stamps) -> FolderContent:
        self._read = self._seen = stamps
        self._content = content
        return content

    def _local(self, message: str) -> str:
        """Return ``message`` without the folder's path, which is nothing for clients."""
        return message.replace(f"{self.path}{os.sep}", "").replace(f"{str(self.path)!r} ", "")

    def _stamps(self) -> Stamps:
        stamps: dict[str, set[_FileStamp]] = {}
        try:
            entries = list(os.scandir(self.path))
        except OSError:
            return {"": frozenset()}
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            if entry.name != DISABLED and (suffix.lower() not in _READ or name.startswith((".", "~$"))):
                continue
            try:
                stat = os.stat(entry.path)
            except OSError:
                stamp = (entry.name, 0, 0, 0)  # a link to nowhere
            else:
                stamp = (entry.name, stat.st_mtime_ns, stat.st_size, stat.st_ino)
            stamps.setdefault(name, set()).add(stamp)
        return {name: frozenset(files) for name, files in stamps.items()}
