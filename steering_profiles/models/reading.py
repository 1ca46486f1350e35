"""Find a model and read its config and dtype: the steps that loading with and without weights have in common."""

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
    """Find a model, and quietly load ``what`` of it.

    Raises:
        ModelLoadError: it cannot be found or read, or not as ``source`` says; the message says what to do.
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
        UnknownArchitecture: it names an architecture that is not known.
        ValueError: something in it is of a kind that it cannot be.
    """
    try:
        config = AutoConfig.from_pretrained(location.path, trust_remote_code=False, **location.options)
    except (AttributeError, TypeError) as exc:
        raise ValueError(f"its config holds what no config of a model does: {in_one_line(exc)}") from exc
    for architecture in config.architectures or ():
        family_of(architecture, config, FAMILIES)
    config.name_or_path = location.origin
    return config


def load_dtype(config: PretrainedConfig, requested: torch.dtype | None) -> torch.dtype:
    """Return the type to load a model in: what is asked for, or the fast one; for quantised weights their own.

    Some libraries keep scales, and all that is not quantised, in the type that a checkpoint was made for, whatever is
    asked for.

    Raises:
        ValueError: the weights are quantised, and made for another type than is asked for.
    """
    own = (config.dtype or config.get_text_config().dtype) if quantisation_of(config) is not None else None
    if own is not None and requested not in (None, own):
        raise ValueError(
            f"its quantised weights are made for {dtype_name(own)}; dtype is {dtype_name(requested)}: leave it at auto"
        )
    return own or requested or fast_dtype()


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of ``dtype`` without its prefix, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def requested_dtype(source: ModelSource) -> torch.dtype | None:
    """Return the type that is asked for; None if any will do."""
    if source.dtype == "auto":
        return None
    dtype = getattr(torch, source.dtype, None)
    if source.dtype not in DTYPES or not isinstance(dtype, torch.dtype):
        raise ModelLoadError(f"dtype is {source.dtype!r}; allowed: {', '.join(DTYPES)}")
    return dtype


def fast_dtype() -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it fast, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    supports = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = supports.get("avx512_bf16") or supports.get("amx_bf16") or supports.get("bf16")
    return torch.bfloat16 if fast else torch.float32
