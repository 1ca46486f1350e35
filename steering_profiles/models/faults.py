"""One-line messages for errors while a model is loaded, with the remedy."""

import struct
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, StrictDataclassError
from safetensors import SafetensorError

from steering_profiles.models.weights import damage, weight_files

CANNOT_LOAD = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)
"""Exceptions of transformers, tokenizers and torch for a missing or invalid model, device or file."""

_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def fault(exc: BaseException, model: str) -> str:
    """Return a message about ``model``, a hub id or a path, for the error that was raised while loading it."""
    for cause in _causes(exc):
        if isinstance(cause, GatedRepoError):
            return f"it is gated: request access at https://huggingface.co/{model}, then {_LOG_IN}"
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"there is no such folder, and no model of this name on the hub that you can access: check the name, "
                f"or {_LOG_IN}"
            )
        if isinstance(cause, SafetensorError | UnpicklingError | EOFError):
            seen = filter(None, map(damage, weight_files(Path(model).expanduser())))
            return next(seen, f"a weights file is damaged: download it again ({in_one_line(cause)})")
        if isinstance(cause, FileNotFoundError) and Path(model).expanduser().is_dir():
            return f"{in_one_line(cause)}; a weights file is missing: download it"
    says = in_one_line(exc)
    if isinstance(exc, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in says:
        return f"not enough memory: {says}; use a smaller dtype or the device map auto"
    return says


def in_one_line(exc: BaseException) -> str:
    """Return the message of an error, shortened to one line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    says = " ".join(lines[:2])
    bare = isinstance(exc, LookupError) or not says  # their message is only the key, or empty
    return f"{type(exc).__name__}: {says}".rstrip(": ") if bare else says


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while exc is not None:
        yield exc
        exc = exc.__cause__
