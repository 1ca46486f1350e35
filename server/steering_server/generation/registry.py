"""The profiles that a server can apply, which change while it runs: by requests, and by files in a folder.

A change replaces a whole snapshot, so that a request sees one state only. A sequence keeps the profile that it began
with, since profiles are immutable.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import structlog

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.errors import GateError, ProfileError
from steering_profiles.labels import Label
from steering_profiles.schema import BASELINE, ModelIdentity, Profile
from steering_profiles.store import Catalogue, Entry, content_hash
from steering_server.errors import ConfigError, Conflict, DefaultUnavailable, NotFound
from steering_server.generation.profile_folder import FolderContent, ProfileFault, ProfileFolder
from steering_server.generation.profiles import CheckProfile, ProfileCard, check_profile

Precondition = Callable[[str | None], None]
"""Raises an error unless the content hash of the current version, None where there is none, is as expected."""

_log = structlog.get_logger("steering_server.profiles")


@dataclass(frozen=True)
class Snapshot(Mapping[str, ProfileCard]):
    """The state of the profiles at one moment: all of them by name, usable or not."""

    cards: Mapping[str, ProfileCard]
    faults: tuple[ProfileFault, ...]
    """Files of the folder that cannot be used."""
    default: Label
    """The default for requests that name no profile; the baseline unless the operator chose a profile."""

    def __getitem__(self, name: str) -> ProfileCard:
        return self.cards[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)

    def require_default(self) -> Label:
        """Return the default, which can be applied.

        Raises:
            DefaultUnavailable: a profile of it is disabled or gone. Such requests are never answered unsteered.
        """
        for name in self.default.names:
            card = self.cards.get(name)
            if card is None or not card.available:
                state = "there is no such profile now" if card is None else "it is disabled"
                raise DefaultUnavailable(
                    f"the server's default profile {name} cannot be applied: {state}; "
                    f"name another profile in the request, or {BASELINE}"
                )
        return self.default


@dataclass(frozen=True)
class Change:
    """A change of one profile."""

    before: ProfileCard | None
    """None if there was no profile of this name."""
    after: ProfileCard | None
    """None if there is none any more."""
    survives_restart: bool


class ProfileRegistry(Mapping[str, ProfileCard]):
    """All profiles of a server by name. Thread-safe; a change may read and write files."""

    def __init__(
        self, catalogue: Catalogue, check: CheckProfile, *, folder: Path | None = None, default: Label | None = None
    ) -> None:
        """Check the profiles of ``catalogue``, and those in ``folder``, which will be watched and written.

        Raises:
            ProfileError: a file of the folder cannot be used, or is for another model.
            ConfigError: ``default`` names a profile that is not there or cannot be applied.
        """
        self._check = check
        self._lock = threading.Lock()
        self._shipped: dict[str, ProfileCard] = {}
        self._own: dict[str, ProfileCard] = {}
        self._disabled: frozenset[str] = frozenset()
        self._disabled_is_written = True
        """Whether the folder, if there is one, says the same about disabled profiles."""
        self._faults: tuple[ProfileFault, ...] = ()
        self._default = default or Label()
        for name in catalogue:
            entry = catalogue[name]
            shipped = entry if entry.shipped else entry.replaced
            if shipped is not None:
                self._shipped[name] = check(shipped)
            if not entry.shipped:
                self._own[name] = check(entry)
        self._folder = None if folder is None else ProfileFolder(folder, check)
        if self._folder is not None:
            self._take(self._folder.read({}, strict=True))
        self._snapshot = self._publish()
        self._require_default_at_start()

    @classmethod
    def open(
        cls,
        catalogue: Catalogue,
        model: ModelIdentity,
        refuses: Callable[[Profile], str | None],
        *,
        force: bool,
        folder: Path | None = None,
        default: Label | None = None,
    ) -> "ProfileRegistry":
        """Check the profiles against ``model``, see :func:`.check_profile`.

        Raises:
            ProfileError: a file of the folder cannot be used, or is for another model.
            ConfigError: ``default`` names a profile that is not there or cannot be applied.
        """
        check = partial(check_profile, model=model, refuses=refuses, force=force)
        return cls(catalogue, check, folder=folder, default=default)

    def __getitem__(self, name: str) -> ProfileCard:
        return self._snapshot[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot)

    def __len__(self) -> int:
        return len(self._snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """The state at this moment, which does not change."""
        return self._snapshot

    @property
    def has_folder(self) -> bool:
        """Whether there is a folder, so that changes survive a restart."""
        return self._folder is not None

    def put(self, profile: Profile, precondition: Precondition, *, dry_run: bool = False) -> Change:
        """Add ``profile``, or replace the one of its name; with ``dry_run`` only check that this can be done.

        A disabled profile stays disabled.

        Raises:
            PreconditionFailed: raised by ``precondition``.
            ProfileMismatch: the profile is for another model, or the engine refuses it.
            Conflict: it does not suit the server's default, or the folder cannot be written.
        """
        name = profile.name
        with self._lock:
            self._reread()
            before = self._snapshot.get(name)
            precondition(before.entry.content_hash if before else None)
            path = None if self._folder is None else self._folder.path / f"{name}.json"
            after = self._check(Entry(profile, path, content_hash(profile), shipped=False))
            self._require_composable_default(after)
            if dry_run:
                after = replace(after, enabled=name not in self._disabled)
            else:
                after = self._write(after)
                _log.info("profile_put", profile=name, hash=after.entry.content_hash, storage=after.storage)
            return Change(before, after, survives_restart=self.has_folder)

    def delete(self, name: str, precondition: Precondition) -> Change:
        """Delete one of the operator's own profiles; a shipped one of the same name takes its place.

        Raises:
            NotFound: there is no such profile.
            PreconditionFailed: raised by ``precondition``.
            Conflict: it is a shipped one or the server's default, or the folder cannot be written.
        """
        with self._lock:
            self._reread()
            before = self._existing(name)
            precondition(before.entry.content_hash)
            if before.entry.shipped:
                raise Conflict(
                    f"name: profile {name} is shipped with the server and cannot be deleted; it can be disabled",
                    param="name",
                    code="profile_shipped",
                )
            if name in self._default.names:
                raise Conflict(
                    f"name: profile {name} is the server's default and cannot be deleted; replace it, disable it, "
                    "or start the server with another default",
                    param="name",
                    code="profile_is_default",
                )
            if self._folder is None:
                del self._own[name]
            else:
                with _writing():
                    self._folder.delete(name)
                self._take(self._folder.read(self._own))
            if name in self._disabled and name not in self._shipped:
                self._set_disabled(self._disabled - {name})
            self._snapshot = self._publish()
            _log.info("profile_deleted", profile=name, hash=before.entry.content_hash)
            return Change(before, self._snapshot.get(name), survives_restart=self.has_folder)

    def set_enabled(self, name: str, enabled: bool, precondition: Precondition) -> Change:
        """Let requests use a profile, or not.

        Disabling works also where the folder cannot be written; it does not survive a restart then.

        Raises:
            NotFound: there is no such profile.
            PreconditionFailed: raised by ``precondition``.
        """
        with self._lock:
            self._reread()
            before = self._existing(name)
            precondition(before.entry.content_hash)
            written = self._set_disabled(self._disabled - {name} if enabled else self._disabled | {name})
            self._snapshot = self._publish()
            _log.info("profile_enabled" if enabled else "profile_disabled", profile=name, survives_restart=written)
            return Change(before, self._snapshot[name], survives_restart=written)

    def poll(self) -> None:
        """Read the folder again if it has changed and the change is complete."""
        with self._lock:
            if self._folder is not None and self._folder.has_settled():
                self._reread()

    def reload(self) -> None:
        """Read the folder again, whether or not it has changed."""
        with self._lock:
            self._reread()

    def _reread(self) -> None:
        if self._folder is not None:
            self._take(self._folder.read(self._own))
            before, self._snapshot = self._snapshot, self._publish()
            _log_differences(before, self._snapshot)

    def _write(self, card: ProfileCard) -> ProfileCard:
        """Keep ``card`` and return it as published."""
        name = card.entry.profile.name
        if self._folder is None:
            self._own[name] = card
        else:
            with _writing():
                self._folder.write(card.entry.profile)
            self._take(self._folder.read(self._own))
        self._snapshot = self._publish()
        published = self._snapshot.get(name)
        if published is None or published.entry.content_hash != card.entry.content_hash:
            raise Conflict(f"name: the file of profile {name} was changed at the same time", param="name")
        return published

    def _take(self, content: FolderContent) -> None:
        self._own = dict(content.cards)
        if self._disabled_is_written:
            self._disabled = content.disabled
        self._faults = tuple(content.faults.values())

    def _set_disabled(self, names: frozenset[str]) -> bool:
        """Set the names of disabled profiles; return whether they were written to the folder."""
        self._disabled, self._disabled_is_written = names, False
        if self._folder is not None:
            try:
                self._folder.write_disabled(names)
                self._disabled_is_written = True
            except OSError as exc:
                _log.warning("disabled_profiles_not_written", reason=exc.strerror)
        return self._disabled_is_written

    def _existing(self, name: str) -> ProfileCard:
        card = self._snapshot.get(name)
        if card is None:
            raise unknown_profile(name, self._snapshot)
        return card

    def _publish(self) -> Snapshot:
        cards: dict[str, ProfileCard] = {}
        for name in sorted(self._shipped.keys() | self._own.keys()):
            card, shipped = self._own.get(name), self._shipped.get(name)
            if card is None:
                card = self._shipped[name]
            elif shipped is not None:
                card = replace(card, entry=replace(card.entry, replaced=shipped.entry))
            cards[name] = replace(card, enabled=name not in self._disabled)
        return Snapshot(MappingProxyType(cards), self._faults, self._default)

    def _require_default_at_start(self) -> None:
        for name in self._default.names:
            card = self._snapshot.get(name)
            if card is None or not card.usable:
                reason = f"it does not fit the model: {card.reason}" if card else "there is no such profile"
                usable = ", ".join(known for known, one in self._snapshot.items() if one.usable) or "none"
                raise ConfigError(f"default_profile is {self._default}, but {name}: {reason}; this model has: {usable}")
            if not card.enabled:
                _log.warning("default_profile_is_disabled", profile=name)
        try:
            self._require_composable_default(None)
        except Conflict as exc:
            raise ConfigError(f"default_profile is {self._default}: {exc}") from exc

    def _require_composable_default(self, new: ProfileCard | None) -> None:
        """Check that the default's profiles compose, with ``new`` in the place of the one of its name."""
        names = self._default.names
        if new is not None and new.entry.profile.name not in names:
            return
        cards = {name: self._snapshot[name] for name in names if name in self._snapshot}
        if new is not None:
            cards[new.entry.profile.name] = new
        try:
            Steering(tuple(ProfileAtStrength(card.entry.profile, self._default.strength) for card in cards.values()))
        except GateError as exc:
            raise Conflict(f"the server's default could not be applied: {exc}", param="final_layer.gate") from exc


def unknown_profile(name: str, known: Mapping[str, ProfileCard]) -> NotFound:
    """Return the error for a name that no profile has."""
    return NotFound(
        f"name: no profile named {name[:64]!a}; known: {', '.join(known) or 'none'}",
        param="name",
        code="profile_not_found",
    )


@contextmanager
def _writing() -> Iterator[None]:
    """Convert errors of the folder.

    Raises:
        Conflict: it cannot be written.
    """
    try:
        yield
    except (OSError, ProfileError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not there"
        _log.warning("profile_folder_not_written", reason=reason)
        raise Conflict(f"the server's profile folder cannot be written: {reason}", code="folder_not_writable") from exc


def _log_differences(before: Snapshot, after: Snapshot) -> None:
    for name in sorted(before.keys() | after.keys()):
        old, new = (snapshot.get(name) for snapshot in (before, after))
        if new is None:
            _log.info("profile_removed", profile=name)
        elif old is None or old.entry.content_hash != new.entry.content_hash:
            _log.info("profile_loaded", profile=name, hash=new.entry.content_hash)
    for fault in after.faults:
        if fault not in before.faults:
            _log.warning("profile_file_refused", file=fault.file, reason=fault.message, kept=fault.kept)
