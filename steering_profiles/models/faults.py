"""What went wrong while a model was loaded, in one line that says what to do."""

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
"""What transformers, tokenizers and torch raise for a model, a device or a file that is not there or not right."""

_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def fault(exc: BaseException, model: str) -> str:
    """Return what is wrong with ``model``, a hub id or a path, by the error that loading it ended in."""
    for cause in _causes(exc):
        if isinstance(cause, GatedRepoError):
            return f"it is gated: ask for access at https://huggingface.co/{model}, then {_LOG_IN}"
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"no such folder, and on the hub no model of this name that you may read: check the name, or {_LOG_IN}"
            )
        if isinstance(cause, SafetensorError | UnpicklingError | EOFError):
            seen = filter(None, map(damage, weight_files(Path(model).expanduser())))
            return next(seen, f"a file of its weights is damaged: download it again ({in_one_line(cause)})")
        if isinstance(cause, FileNotFoundError) and Path(model).expanduser().is_dir():
            return f"{in_one_line(cause)}; a file of its weights is missing: download it too"
    says = in_one_line(exc)
    if isinstance(exc, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in says:
        return f"not enough memory: {says}; a smaller dtype needs less, and so does the device map auto"
    return says


def in_one_line(exc: BaseException) -> str:
    """Return what an error says, shortened to one line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    says = " ".join(lines[:2])
    bare = isinstance(exc, LookupError) or not says  # their text is the key alone, or nothing
    return f"{type(exc).__name__}: {says}".rstrip(": ") if bare else says


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came of; each has one at most, and they do not go in circles."""
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
