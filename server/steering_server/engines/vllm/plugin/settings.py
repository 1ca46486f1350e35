"""Settings of the plugin: the value of ``steering`` in vLLM's ``--additional-config``, which every process has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from steering_server.errors import ConfigError

SECTION = "steering"
"""Key of the settings in ``additional_config``."""

STAMP = "steering_server"
"""Key of what the plugin adds to ``additional_config``, for the hash of vLLM's compile cache."""


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("must be the path of a folder")
    return value


class PluginSettings(BaseModel):
    """Settings of the plugin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profiles: Annotated[Path, BeforeValidator(_text)] | None = None
    """Folder of the operator's own profiles."""
    shipped: Annotated[bool, Field(strict=True)] = True
    """Whether the profiles that come with the package are served too, where they fit the model."""
    force: Annotated[bool, Field(strict=True)] = False
    """Whether profiles made for another model are applied where all of their components exist in this one."""
    canary: Annotated[bool, Field(strict=True)] = True
    """Whether it is proved at start that every steered part is in what runs."""


def read_settings(additional_config: Any) -> PluginSettings:
    """Return the settings in vLLM's ``additional_config``; the defaults where it has none.

    Raises:
        ConfigError: a setting is unknown or invalid; the message names it and what is allowed.
    """
    if not isinstance(additional_config, Mapping):
        raise ConfigError(
            f"additional_config is a {type(additional_config).__name__}; with steering it must be a JSON object"
        )
    given = additional_config.get(SECTION, {})
    try:
        return PluginSettings.model_validate(given)
    except ValidationError as exc:
        raise ConfigError("; ".join(_described(error) for error in exc.errors())) from exc


def _described(error: Any) -> str:
    where = ".".join(str(part) for part in ("additional_config", SECTION, *error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{where} is not a setting; allowed: {', '.join(PluginSettings.model_fields)}"
    return f"{where} is {error['input']!a}: {error['msg'].removeprefix('Value error, ')}"
