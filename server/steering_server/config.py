"""Settings of ``steer serve``, each of which is an option and an environment variable ``STEER_...``."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from platformdirs import user_cache_path
from pydantic import BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from steering_profiles.source import EMBEDDED, DtypeName, ModelSource
from steering_server.errors import ConfigError
from steering_server.limits import RENAMED, EngineLimits, InvarianceMode

PREFIX = "STEER_"

_log = logging.getLogger(__name__)


def parse_device_map(given: object) -> object:
    """Parse ``auto``, a device, or a JSON object from module name to device; a value that is no string is returned.

    Raises:
        ConfigError: the JSON object is malformed.
    """
    if not isinstance(given, str) or not given.lstrip().startswith("{"):
        return given
    try:
        parsed = json.loads(given)
    except ValueError as exc:
        raise ConfigError(f"device map is {given!r}, which is not JSON: {exc}") from exc
    if not all(isinstance(device, str | int) for device in parsed.values()):
        raise ConfigError(f"device map is {given!r}; it must map module names to devices (names or numbers)")
    return parsed


def parse_max_memory(given: str | Sequence[str] | Mapping[int | str, str] | None) -> Mapping[int | str, str] | None:
    """Parse ``DEVICE=SIZE`` entries, in a list or separated by commas; a device that is a number is a GPU.

    Raises:
        ConfigError: an entry has another form.
    """
    if given is None or isinstance(given, Mapping):
        return given
    parsed: dict[int | str, str] = {}
    for entry in given.split(",") if isinstance(given, str) else given:
        device, separator, size = entry.strip().partition("=")
        if not (separator and device and size):
            raise ConfigError(f"max memory is {entry!r}; it must be DEVICE=SIZE, such as cpu=20GiB")
        parsed[int(device) if device.isdigit() else device] = size
    return parsed


class ModelSettings(BaseSettings):
    """The model to load and how to load it; used by every command that loads one."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, protected_namespaces=()
    )

    model: str = EMBEDDED
    """Hub id, folder, ``.gguf`` file, or ``embedded``."""
    dtype: DtypeName = "auto"
    device_map: Annotated[str | dict[str, int | str] | None, NoDecode, BeforeValidator(parse_device_map)] = None
    max_memory: Annotated[dict[int | str, str] | None, NoDecode, BeforeValidator(parse_max_memory)] = None
    cache_dir: Path = Field(default_factory=lambda: user_cache_path("steering-server"))

    @property
    def model_source(self) -> ModelSource:
        """The model to load and how to load it."""
        return ModelSource(
            model=self.model,
            dtype=self.dtype,
            device_map=self.device_map,
            max_memory=self.max_memory,
            cache=self.cache_dir,
        )


class ServerSettings(ModelSettings):
    """Settings of the server."""

    served_name: str | None = None
    profiles: Path | None = None
    """Folder of the operator's own profiles."""
    force_profiles: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_num_seqs: Annotated[int, Field(ge=1)] = EngineLimits.max_num_seqs
    max_queue: Annotated[int, Field(ge=0)] = EngineLimits.max_queue
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    max_num_batched_tokens: Annotated[int, Field(ge=1)] = EngineLimits.max_num_batched_tokens
    max_num_batched_tokens_mixed: Annotated[int, Field(ge=1)] = EngineLimits.max_num_batched_tokens_mixed
    kv_cache_memory: ByteSize | None = None
    prefix_cache: bool = EngineLimits.prefix_cache
    batch_invariant: InvarianceMode = EngineLimits.batch_invariant
    shutdown_grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30
    """Seconds that running requests have to finish after the server is told to stop."""
    keep_alive: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 75
    """Seconds after which an idle connection is closed; longer than the 60 seconds of most proxies."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


_Settings = TypeVar("_Settings", bound=ModelSettings)


def load_settings(**given: Any) -> ServerSettings:
    """Return the settings of a server: values ``given`` first, then the environment, then the defaults.

    Raises:
        ConfigError: a value is invalid, or a variable with our prefix is no setting; the message names it and what is
            allowed.
    """
    return _load(ServerSettings, _renamed_variables() | given)


def load_model_source(**given: Any) -> ModelSource:
    """Return the model to load, for commands that do not serve; the values of other settings are not checked.

    Raises:
        ConfigError: as :func:`load_settings`; unknown variables too, since a misspelt one would load another model.
    """
    return _load(ModelSettings, given).model_source


def _load(kind: type[_Settings], given: dict[str, Any]) -> _Settings:
    _require_known_variables()
    try:
        return kind(**given)
    except ValidationError as exc:
        faults = [f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg'].lower()}" for e in exc.errors()]
        raise ConfigError("; ".join(faults)) from exc


def _renamed_variables() -> dict[str, str]:
    """Return the settings that are given by the former name of their variable, and warn about each."""
    variables = {variable.upper(): value for variable, value in os.environ.items() if value}
    found = {}
    for old, new in RENAMED.items():
        old_variable, new_variable = PREFIX + old.upper(), PREFIX + new.upper()
        if old_variable in variables:
            _log.warning("%s is deprecated; use %s", old_variable, new_variable)
            if new_variable not in variables:
                found[new] = variables[old_variable]
    return found


def _require_known_variables() -> None:
    known = {name.upper(): PREFIX + name.upper() for name in ServerSettings.model_fields}
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(PREFIX)
        if variable.upper().startswith(PREFIX) and name not in known and name.lower() not in RENAMED:
            close = [known[each] for each in get_close_matches(name, known)]
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known.values())}"
            raise ConfigError(f"unknown environment variable {variable}; {hint}")
