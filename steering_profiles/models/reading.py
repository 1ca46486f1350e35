"""Finding a model and reading its config: the steps shared by loading with and without weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AutoConfig, PretrainedConfig

from steering_profiles.errors import ModelLoadError
from steering_profiles.models.anatomy import family_of
from steering_profiles.models.families import FAMILIES
from steering_profiles.models.faults import CANNOT_LOAD, fault, in_one_line
from steering_profiles.models.locating import Location, located
from steering_profiles.models.placement import require_max_memory
from steering_profiles.models.quantised import quantisation_of
from steering_profiles.models.quiet import quietly
from steering_profiles.source import DTYPES, ModelSource


@contextmanager
def found(source: ModelSource, what: str) -> Iterator[Location]:
    """Find a model, and turn errors inside this context into messages about loading ``what`` of it.

    Raises:
        ModelLoadError: the model cannot be found, or not be loaded as ``source`` says; the message says what to do.
    """
    location: Location | None = None
    try:
        if source.max_memory is not None:
            require_max_memory(source.max_memory, source.device_map)
        with quietly(), located(source.model, source.cache) as location:
            yield location
    except CANNOT_LOAD as exc:
        says = fault(exc, source.model)
        if location is not None:
            says = location.without_temporary(says)
        raise ModelLoadError(f"cannot load {what} {source.model!r}: {says}") from exc


def read_config(location: Location) -> PretrainedConfig:
    """Read a model's config.

    Raises:
        UnknownArchitecture: the config names an unknown architecture.
        ValueError: a value in the config is of the wrong type.
    """
    try:
        config = AutoConfig.from_pretrained(location.path, trust_remote_code=False, **location.options)
    except (AttributeError, TypeError) as exc:
        raise ValueError(f"its config.json is invalid: {in_one_line(exc)}") from exc
    for architecture in config.architectures or ():
        family_of(architecture, config, FAMILIES)
    config.name_or_path = location.origin
    return config


def load_dtype(config: PretrainedConfig, requested: torch.dtype | None) -> torch.dtype:
    """Return the dtype to load a model in: the requested one or the fast one; for quantised weights that of the config.

    Some quantisation libraries keep scales and unquantised weights in the dtype of the checkpoint, whatever dtype is
    requested.

    Raises:
        ValueError: the weights are quantised, and another dtype than the checkpoint's is requested.
    """
    own = (config.dtype or config.get_text_config().dtype) if quantisation_of(config) is not None else None
    if own is not None and requested not in (None, own):
        raise ValueError(
            f"dtype is {dtype_name(requested)}; allowed for its quantised weights: {dtype_name(own)} or auto"
        )
    return own or requested or fast_dtype()


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of ``dtype`` without its prefix, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def requested_dtype(source: ModelSource) -> torch.dtype | None:
    """Return the requested dtype; None for ``auto``."""
    if source.dtype == "auto":
        return None
    dtype = getattr(torch, source.dtype, None)
    if source.dtype not in DTYPES or not isinstance(dtype, torch.dtype):
        raise ModelLoadError(f"dtype is {source.dtype!r}; allowed: {', '.join(DTYPES)}")
    return dtype


def fast_dtype() -> torch.dtype:
    """Return bfloat16 if the CPU or GPU computes fast in it; otherwise float16 on a GPU and float32 on a CPU."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    supports = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = supports.get("avx512_bf16") or supports.get("amx_bf16") or supports.get("bf16")
    return torch.bfloat16 if fast else torch.float32
