"""The keys of a running server."""

import hmac
import os
from datetime import UTC, datetime
from pathlib import Path

import structlog

from steering_server.access.key_files import parse_keys, read_key_file
from steering_server.access.keys import ApiKey, KeyList, hash_secret
from steering_server.errors import ConfigError, Unauthorized

_log = structlog.get_logger("steering_server.access")

_Version = tuple[int, int, int]


class Keyring:
    """The keys of a file, which is read again when it changes, and fixed ones."""

    def __init__(self, file: Path | None = None, fixed: KeyList | None = None) -> None:
        """Read the keys in ``file``.

        Raises:
            ConfigError: there is no such file, it is not a file of keys, or it has a key that ``fixed`` has.
        """
        self._file = file
        self._fixed = fixed or KeyList()
        self._version = _version(file)
        self._keys = self._read()

    @classmethod
    def open(cls, file: Path | None, hashes: str | None) -> "Keyring | None":
        """Return the keys in a file and in a variable, of which either may be None; None if both are.

        Raises:
            ConfigError: one of them does not hold keys.
        """
        if file is None and hashes is None:
            return None
        return cls(file, parse_keys(hashes) if hashes is not None else None)

    def authenticate(self, secret: bytes) -> ApiKey:
        """Return the key with this secret.

        Raises:
            Unauthorized: there is none, or it has expired.
        """
        self._refresh()
        given = hash_secret(secret)
        # All keys are compared, each in constant time, so that the time tells nothing about them.
        matching = [key for key in self._keys if hmac.compare_digest(key.sha256, given)]
        if not matching:
            raise Unauthorized("incorrect API key provided")
        if matching[0].is_expired(datetime.now(UTC)):
            raise Unauthorized(f"the API key {matching[0].name} has expired")
        return matching[0]

    def _refresh(self) -> None:
        version = _version(self._file)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = self._read()
        except ConfigError as exc:
            _log.error("api_keys_not_read", error=str(exc), keys="those read before stay valid")
        else:
            _log.info("api_keys_read", keys=len(self._keys))

    def _read(self) -> tuple[ApiKey, ...]:
        from_file = read_key_file(self._file).keys if self._file is not None else ()
        names = {key.name for key in self._fixed.keys}
        for key in from_file:
            if key.name in names:
                raise ConfigError(f"API keys: {key.name} is in the file and in the variable; keep one of them")
        return (*self._fixed.keys, *from_file)


def _version(file: Path | None) -> _Version | None:
    """Return what changes when a file is replaced or written to; None if it does not exist."""
    if file is None:
        return None
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
