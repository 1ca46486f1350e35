"""The options of every command that loads a model: the model, its type, and its devices."""

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
        help="Model to load: hub id, folder or .gguf file. (default: the embedded SmolLM2-135M-Instruct)",
        rich_help_panel=_PANEL,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Type of the weights: auto, float32, bfloat16 or float16. (default: auto, which is bfloat16 where the "
        "hardware computes it fast)",
        rich_help_panel=_PANEL,
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        help="Devices of the model: auto, one device (cpu, 0, disk), or JSON that maps modules to devices, such as "
        '{"": 0, "model.layers.3": "disk"}.',
        rich_help_panel=_PANEL,
    ),
]
MaxMemory = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DEVICE=SIZE",
        help="Memory limit of a device, such as cpu=20GiB or 0=10GiB, for --device-map auto. May be repeated.",
        rich_help_panel=_PANEL,
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for the dequantised default model, and for weights that a device map puts on disk. "
        "(default: the user's cache folder)",
        rich_help_panel=_PANEL,
    ),
]


def model_settings(
    model: str | None, dtype: str | None, device_map: str | None, max_memory: list[str] | None, cache_dir: Path | None
) -> dict[str, Any]:
    """Return the given options as settings; options that were not given are left out."""
    options = {
        "model": model,
        "dtype": dtype,
        "device_map": device_map,
        "max_memory": max_memory or None,
        "cache_dir": cache_dir,
    }
    return {name: value for name, value in options.items() if value is not None}


def model_identity_options(source: "ModelSource") -> list[Option]:
    """Return the options that load the same model in the same type, whether flags or variables chose them."""
    from steering_profiles.source import ModelSource

    return [Option("--model", source.model, ModelSource.model), Option("--dtype", source.dtype, ModelSource.dtype)]
