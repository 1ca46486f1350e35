"""Which model, and how it is to be loaded: what can be said, and refused, without looking into it. No torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from platformdirs import user_cache_path

from steering_profiles.errors import ModelLoadError

EMBEDDED = "embedded"
"""The name of the default model, which comes from PyPI."""

DtypeName = Literal["auto", "float32", "float16", "bfloat16", "float64"]
DTYPES: tuple[DtypeName, ...] = get_args(DtypeName)

AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
"""Device maps that accelerate makes itself, by the memory of each device."""

GGUF_SUFFIX = ".gguf"
_SIZE = re.compile(r"\d*\.?\d+ *[KMG]I?B", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSource:
    """Which model to load and how."""

    model: str = EMBEDDED
    """A hub id, a folder, a ``.gguf`` file, or ``embedded`` for the default model."""
    dtype: DtypeName = "auto"
    device_map: str | Mapping[str, int | str] | None = None
    """``auto``, a device, or a map from module to device, ``disk`` among them: see
    :func:`.models.placement.explicit_map`. None is the best single device."""
    max_memory: Mapping[int | str, str] | None = None
    """Most memory per device, such as ``{0: "20GiB", "cpu": "60GiB"}``; used with an automatic device map."""
    cache: Path = field(default_factory=lambda: user_cache_path("steering-server"))
    """Folder in which the embedded default is kept in dequantised form, and weights that a device map has on disk."""


def require_possible(source: ModelSource) -> None:
    """See, before anything is loaded, that something can be loaded as ``source`` says.

    Raises:
        ModelLoadError: nothing is where it says, or its limits of memory cannot be kept.
    """
    if source.max_memory is not None:
        try:
            require_limits(source.max_memory, source.device_map)
        except ValueError as exc:
            raise ModelLoadError(f"cannot load model {source.model!r}: {exc}") from exc
    require_there(source.model)


def require_limits(max_memory: Mapping[int | str, str], device_map: str | Mapping[str, int | str] | None) -> None:
    """See that limits of memory are sizes, and that something looks at them: an automatic device map alone does.

    Raises:
        ValueError: they are none, or nothing does.
    """
    if device_map is None:
        raise ValueError("max_memory is given without a device map; it takes one, such as auto")
    if device_map not in AUTOMATIC:
        raise ValueError(
            f"max_memory is given with a device map that says where everything goes; it takes {', '.join(AUTOMATIC)}"
        )
    for device, size in max_memory.items():
        if not _SIZE.fullmatch(size.strip()):
            raise ValueError(f"max_memory of {device} is {size!r}; allowed: a size such as 20GiB or 500MB")


def require_there(model: str) -> None:
    """Refuse what can only be a path where nothing is. What may be a hub id is the hub's to know.

    Raises:
        ModelLoadError: ``model`` is such a path.
    """
    try:
        path = Path(model).expanduser()
        if model == EMBEDDED or path.exists():
            return
    except (OSError, RuntimeError):  # it cannot be looked at, of which loading says why
        return
    if is_named_gguf(path):
        raise ModelLoadError(f"model file {model!r} does not exist")
    if "/" in model and (model.count("/") != 1 or model.startswith((".", "/", "~")) or path.parent.is_dir()):
        raise ModelLoadError(f"model folder {model!r} does not exist")


def is_named_gguf(file: Path) -> bool:
    """Return whether a file, which need not be there, is a GGUF file by its name."""
    return file.suffix.lower() == GGUF_SUFFIX
