"""The options that say which model to load and how, shared by every command that loads one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from steering_server.errors import ConfigError

_PANEL = "Model"

Model = Annotated[
    str | None,
    typer.Option(
        help="Hub id, folder or .gguf file. (default: the embedded SmolLM2-135M-Instruct)", rich_help_panel=_PANEL
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="auto, float32, bfloat16 or float16. (default: auto, bfloat16 where the hardware is fast at it)",
        rich_help_panel=_PANEL,
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(help='As accelerate takes it: auto, a device, or JSON such as {"": "cpu"}.', rich_help_panel=_PANEL),
]
MaxMemory = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DEVICE=SIZE", help="Most memory per device, such as cpu=20GiB or 0=10GiB.", rich_help_panel=_PANEL
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the embedded default is kept, dequantised.", rich_help_panel=_PANEL),
]


def model_settings(
    model: str | None, dtype: str | None, device_map: str | None, max_memory: list[str] | None, cache_dir: Path | None
) -> dict[str, Any]:
    """Return those of these options that were given, as settings.

    Raises:
        ConfigError: an option cannot be understood; the message names it.
    """
    options = {
        "model": model,
        "dtype": dtype,
        "device_map": parse_device_map(device_map),
        "max_memory": parse_max_memory(max_memory),
        "cache_dir": cache_dir,
    }
    return {name: value for name, value in options.items() if value is not None}


def parse_device_map(text: str | None) -> str | dict[str, int | str] | None:
    """Read ``auto``, a device, or a JSON object from module to device."""
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        parsed = json.loads(text)
    except ValueError as exc:
        raise ConfigError(f"device map is {text!r}, which is not JSON: {exc}") from exc
    if not all(isinstance(device, str | int) for device in parsed.values()):
        raise ConfigError(f"device map is {text!r}; it maps module names to devices (names or numbers)")
    return dict(parsed)


def parse_max_memory(entries: list[str] | None) -> dict[int | str, str] | None:
    """Read ``DEVICE=SIZE`` entries; a device that is a number is a GPU."""
    if not entries:
        return None
    parsed: dict[int | str, str] = {}
    for entry in entries:
        device, separator, size = entry.partition("=")
        if not (separator and device and size):
            raise ConfigError(f"max memory is {entry!r}; it is written DEVICE=SIZE, such as cpu=20GiB")
        parsed[int(device) if device.isdigit() else device] = size
    return parsed
