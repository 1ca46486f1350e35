"""Settings of ``steer serve``, each of which is an option and an environment variable ``STEER_...``."""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from platformdirs import user_cache_path
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from steering_profiles.errors import LabelError
from steering_profiles.labels import Label, parse_label
from steering_profiles.source import EMBEDDED, DtypeName, ModelSource
from steering_server.errors import ConfigError
from steering_server.limits import (
    RENAMED,
    ConnectionLimits,
    EngineLimits,
    EngineName,
    InvarianceMode,
    MetricsAccess,
    RequestLimits,
)

PREFIX = "STEER_"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
FieldPolicy = Literal["strict", "standard", "lenient"]
"""What happens to fields of requests. ``standard`` refuses unknown ones, and accepts and names those that have no
effect; ``strict`` refuses these too; ``lenient`` leaves unknown ones out and names them."""

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


def parse_vllm_args(given: object) -> object:
    """Parse a JSON object of arguments of vLLM's engine; a value that is no string is returned.

    Raises:
        ConfigError: it is not a JSON object.
    """
    if not isinstance(given, str):
        return given
    try:
        parsed = json.loads(given)
    except ValueError as exc:
        raise ConfigError(f"vllm_args is {given!r}, which is not JSON: {exc}") from exc
    if not isinstance(parsed, dict):
        raise ConfigError(f'vllm_args is {given!r}; allowed: a JSON object, such as {{"tensor_parallel_size": 2}}')
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


def parse_origins(given: object) -> object:
    """Parse origins of web pages, in a list or separated by commas: ``https://example.org``, or ``*`` for all.

    Raises:
        ConfigError: an entry has another form.
    """
    if not isinstance(given, str | list | tuple):
        return given
    origins = tuple(str(entry).strip() for entry in (given.split(",") if isinstance(given, str) else given))
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"cors origins is {origin!r}; an origin must be scheme://host or scheme://host:port in lower case, "
                "without a path, or * for all"
            )
    return origins


def check_default_profile(given: str | None) -> str | None:
    """Return ``given`` if it is a label of profiles that change something.

    Raises:
        ValueError: it is not.
    """
    if given is None:
        return None
    try:
        label = parse_label(given)
    except LabelError as exc:
        raise ValueError(str(exc)) from exc
    if not label.names or not label.strength:
        raise ValueError("this is no steering, which is what a server without a default profile does")
    repeated = next((name for name in label.names if label.names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"profile {repeated} is named twice")
    return given


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

    engine: EngineName = "local"
    """The engine that runs the model: this project's own, or vLLM with the plugin."""
    vllm_args: Annotated[dict[str, Any] | None, NoDecode, BeforeValidator(parse_vllm_args)] = None
    """Further arguments of vLLM's engine."""
    served_name: str | None = None
    profiles: Path | None = None
    """Folder of the operator's own profiles."""
    profiles_poll: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1
    """Seconds between looks at that folder for changes; 0 for none."""
    default_profile: Annotated[str | None, AfterValidator(check_default_profile)] = None
    """Profile that is applied to requests that do not say what to apply, as ``NAME``, ``A+B`` or ``NAME@STRENGTH``."""
    force_profiles: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    insecure: bool = False
    """Whether a server without API keys may listen on an address that others can reach."""
    api_keys_file: Path | None = None
    api_key_hashes: str | None = None
    docs: bool = True
    page: bool = True
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_origins)] = ()
    max_body_size: Annotated[ByteSize, Field(ge=1024)] = ByteSize(RequestLimits.max_body_size)
    max_body_memory: ByteSize | None = None
    max_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_request_sequences: Annotated[int, Field(ge=1)] = RequestLimits.max_request_sequences
    request_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = RequestLimits.request_timeout
    max_connections: Annotated[int, Field(ge=1)] = ConnectionLimits.max_connections
    max_headers: Annotated[int, Field(ge=8)] = ConnectionLimits.max_headers
    max_header_size: Annotated[ByteSize, Field(ge=1024)] = ByteSize(ConnectionLimits.max_header_size)
    header_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = ConnectionLimits.header_timeout
    client_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = ConnectionLimits.client_timeout
    max_num_seqs: Annotated[int, Field(ge=1)] = EngineLimits.max_num_seqs
    max_queue: Annotated[int, Field(ge=0)] = EngineLimits.max_queue
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    max_num_batched_tokens: Annotated[int, Field(ge=1)] = EngineLimits.max_num_batched_tokens
    max_num_batched_tokens_mixed: Annotated[int, Field(ge=1)] = EngineLimits.max_num_batched_tokens_mixed
    kv_cache_memory: ByteSize | None = None
    prefix_cache: bool = EngineLimits.prefix_cache
    cuda_graphs: bool = EngineLimits.cuda_graphs
    batch_invariant: InvarianceMode = EngineLimits.batch_invariant
    shutdown_grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30
    """Seconds that running requests have to finish after the server is told to stop."""
    keep_alive: Annotated[float, Field(gt=0, allow_inf_nan=False)] = ConnectionLimits.keep_alive
    metrics: MetricsAccess = "key"
    """Whether ``/metrics`` needs a key where other routes do, or never needs one, or does not exist."""
    database_url: str | None = Field(None, repr=False)
    """URL of the database of experiments, which may hold a password; None for a file in the user's state folder."""
    otlp_traces_endpoint: str | None = None
    """URL that traces are sent to; None for that of OpenTelemetry's own variables, if any."""
    ignore_unknown_fields: bool = False
    """Whether unknown fields of requests are left out, and named in the answer, instead of refused."""
    strict: bool = False
    """Whether fields of requests that have no effect on this server are refused too."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def request_limits(self) -> RequestLimits:
        """Limits on one request.

        Raises:
            ConfigError: the memory for all bodies holds less than one of the maximum size.
        """
        if self.max_body_memory is not None and self.max_body_memory < self.max_body_size:
            raise ConfigError(
                f"max body memory is {self.max_body_memory} bytes; it must hold a body of max body size, "
                f"{self.max_body_size} bytes"
            )
        return RequestLimits(
            max_body_size=self.max_body_size,
            max_body_memory=self.max_body_memory,
            max_prompt_tokens=self.max_prompt_tokens,
            max_completion_tokens=self.max_completion_tokens,
            max_request_sequences=self.max_request_sequences,
            request_timeout=self.request_timeout,
        )

    @property
    def connection_limits(self) -> ConnectionLimits:
        """Limits on connections and on how slow their clients may be."""
        return ConnectionLimits(
            max_connections=self.max_connections,
            max_headers=self.max_headers,
            max_header_size=self.max_header_size,
            header_timeout=self.header_timeout,
            client_timeout=self.client_timeout,
            keep_alive=self.keep_alive,
        )

    @property
    def default_label(self) -> Label | None:
        """The default profile and its strength; None for the baseline."""
        return parse_label(self.default_profile) if self.default_profile is not None else None

    @property
    def field_policy(self) -> FieldPolicy:
        """What happens to fields of requests that are unknown or have no effect.

        Raises:
            ConfigError: two policies are asked for.
        """
        if self.strict and self.ignore_unknown_fields:
            raise ConfigError("strict and ignore_unknown_fields exclude each other; choose one of them")
        return "strict" if self.strict else "lenient" if self.ignore_unknown_fields else "standard"


_Settings = TypeVar("_Settings", bound=ModelSettings)


def load_settings(**given: Any) -> ServerSettings:
    """Return the settings of a server: values ``given`` first, then the environment, then the defaults.

    Raises:
        ConfigError: a value is invalid, or excludes another, or a variable with our prefix is no setting; the message
            names it and what is allowed.
    """
    settings = _load(ServerSettings, _renamed_variables() | given)
    if settings.vllm_args is not None and settings.engine != "vllm":
        raise ConfigError(f"vllm_args is given, but engine is {settings.engine}; use it with engine vllm")
    return settings


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
