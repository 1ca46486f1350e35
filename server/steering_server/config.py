"""Settings of the server: every option of ``steer serve``, which is also an environment variable ``STEER_...``."""

from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path
from pydantic import ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from steering_profiles.models import EMBEDDED, ModelSource
from steering_profiles.models.loading import DtypeName
from steering_server.errors import ConfigError

PREFIX = "STEER_"


class ServerSettings(BaseSettings):
    """What the server is started with."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, protected_namespaces=())

    model: str = EMBEDDED
    """Hub id, folder, ``.gguf`` file, or ``embedded``."""
    served_name: str | None = None
    dtype: DtypeName = "auto"
    device_map: str | dict[str, int | str] | None = None
    max_memory: dict[int | str, str] | None = None
    cache_dir: Path = Field(default_factory=lambda: user_cache_path("steering-server"))
    profiles: Path | None = None
    """Folder of the operator's own profiles."""
    force_profiles: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    max_batch: Annotated[int, Field(ge=1)] = 64
    max_queue: Annotated[int, Field(ge=0)] = 256
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    step_tokens: Annotated[int, Field(ge=1)] = 512
    step_tokens_beside: Annotated[int, Field(ge=1)] = 128
    kv_memory: ByteSize | None = None
    prefix_cache: bool = True
    shutdown_grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30
    """Seconds that running requests have to finish once the server is told to stop."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def model_source(self) -> ModelSource:
        """Which model to load and how."""
        return ModelSource(
            model=self.model,
            dtype=self.dtype,
            device_map=self.device_map,
            max_memory=self.max_memory,
            cache=self.cache_dir,
        )


def load_settings(**given: Any) -> ServerSettings:
    """Return the settings: what is ``given`` first, then the environment, then the defaults.

    Raises:
        ConfigError: a value cannot be used; the message names it and what is allowed.
    """
    try:
        return ServerSettings(**given)
    except ValidationError as exc:
        faults = [f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg'].lower()}" for e in exc.errors()]
        raise ConfigError("; ".join(faults)) from exc
