"""The options that say which model to load and how, shared by every command that loads one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steering_server.cli.options import Option

if TYPE_CHECKING:
    from steering_profiles.source import ModelSource

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
    typer.Option(
        help='auto, a device (cpu, 0, disk), or JSON from parts to devices, such as {"": 0, "model.layers.3": "disk"}.',
        rich_help_panel=_PANEL,
    ),
]
MaxMemory = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DEVICE=SIZE",
        help="Most memory per device, such as cpu=20GiB or 0=10GiB, under device map auto.",
        rich_help_panel=_PANEL,
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the embedded default is kept, dequantised, and weights that a device map puts on disk.",
        rich_help_panel=_PANEL,
    ),
]


def model_settings(
    model: str | None, dtype: str | None, device_map: str | None, max_memory: list[str] | None, cache_dir: Path | None
) -> dict[str, Any]:
    """Return those of these options that were given, as settings."""
    options = {
        "model": model,
        "dtype": dtype,
        "device_map": device_map,
        "max_memory": max_memory or None,
        "cache_dir": cache_dir,
    }
    return {name: value for name, value in options.items() if value is not None}


def that_load(source: "ModelSource") -> list[Option]:
    """Return the options that have the same model loaded in the same type, wherever that was said."""
    from steering_profiles.source import ModelSource

    return [Option("--model", source.model, ModelSource.model), Option("--dtype", source.dtype, ModelSource.dtype)]
