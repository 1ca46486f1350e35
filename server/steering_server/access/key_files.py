"""Files and variables that hold API keys."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from steering_server.access.keys import ApiKey, KeyList
from steering_server.errors import ConfigError

_LOCK_SECONDS = 10
_ENTRY = re.compile(r"(?P<name>[^:=]+)(:(?P<role>[^:=]+))?=(sha256:)?(?P<sha256>[^:=]+)")


def read_key_file(path: Path) -> KeyList:
    """Read the keys in the file at ``path``.

    Raises:
        ConfigError: there is no such file, or it is not a file of keys.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise ConfigError(
            f"API keys: there is no file {str(path)!r}; make it with: steer keys add NAME --file {path}"
        ) from exc
    except OSError as exc:
        raise ConfigError(f"API keys: {str(path)!r} cannot be read: {exc.strerror}") from exc
    return _parse(content, f"API keys: {str(path)!r}")


def parse_keys(given: str) -> KeyList:
    """Parse the keys in a variable: the content of a key file, or ``NAME=SHA256`` and ``NAME:admin=SHA256``, separated
    by commas.

    Raises:
        ConfigError: it is neither.
    """
    if given.lstrip().startswith("{"):
        return _parse(given.encode(), "API key hashes")
    keys = []
    for entry in filter(None, (part.strip() for part in given.split(","))):
        matched = _ENTRY.fullmatch(entry)
        if matched is None:
            raise ConfigError(
                "API key hashes: an entry must be NAME=SHA256 or NAME:admin=SHA256, with the SHA-256 of the key in 64 "
                "hexadecimal digits; steer keys list --hashes prints them so"
            )
        keys.append({name: value for name, value in matched.groupdict().items() if value is not None})
    return _validated(lambda: KeyList.model_validate({"keys": keys}), "API key hashes")


def edit_key_file(path: Path, edit: Callable[[KeyList], KeyList]) -> None:
    """Replace the keys in the file at ``path``, which need not exist, by what ``edit`` makes of them.

    Only one process at a time edits the file. It is written at once, and only its owner may read it.

    Raises:
        ConfigError: the file cannot be read or written, another process keeps it locked, or ``edit`` raises it.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600):
            known = read_key_file(target) if target.exists() else KeyList()
            _write(target, edit(known).model_dump_json(indent=2, exclude_none=True).encode() + b"\n")
    except Timeout as exc:
        raise ConfigError(f"API keys: another process has been editing {str(path)!r} for {_LOCK_SECONDS} s") from exc
    except OSError as exc:
        raise ConfigError(f"API keys: {str(path)!r} cannot be written: {exc.strerror}") from exc


def added(keys: KeyList, key: ApiKey) -> KeyList:
    """Return ``keys`` and ``key``.

    Raises:
        ConfigError: there is a key of this name.
    """
    if any(known.name == key.name for known in keys.keys):
        raise ConfigError(f"there is a key named {key.name} already; revoke it first or choose another name")
    return keys.model_copy(update={"keys": (*keys.keys, key)})


def without(keys: KeyList, name: str) -> KeyList:
    """Return ``keys`` without the one of this name.

    Raises:
        ConfigError: there is no such key.
    """
    if all(key.name != name for key in keys.keys):
        known = ", ".join(key.name for key in keys.keys) or "none"
        raise ConfigError(f"there is no key named {name!r}; known: {known}")
    return keys.model_copy(update={"keys": tuple(key for key in keys.keys if key.name != name)})


def _write(path: Path, content: bytes) -> None:
    # Files of the tempfile module can be read by their owner only.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as partial:
        try:
            partial.write(content)
            partial.flush()
            os.fsync(partial.fileno())
            Path(partial.name).replace(path)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise


def _parse(content: bytes, what: str) -> KeyList:
    return _validated(lambda: KeyList.model_validate_json(content), what)


def _validated(make: Callable[[], KeyList], what: str) -> KeyList:
    try:
        return make()
    except ValidationError as exc:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg'].lower()}" for e in exc.errors()[:3]]
        raise ConfigError(f"{what} is not a list of API keys: {'; '.join(faults)}") from exc
