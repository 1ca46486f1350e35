"""Check that a model's weights fit into memory, from its config, before they are read; give back what is freed."""

import ctypes
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedModel

from steering_profiles.models.placement import DISK, Device, device_of

_MEMBERSHIP = Path("/proc/self/cgroup")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def require_memory(model: PreTrainedModel, dtype: torch.dtype, whole: Mapping[str, Device]) -> None:
    """Check that each device has memory for the weights that a device map of all parts of ``model`` puts there.

    Weights on disk need none. Quantised models are not checked, because their weights take less than their shapes say.

    Raises:
        ValueError: a device has too little memory.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return
    needed: dict[str, int] = defaultdict(int)
    for name, weight in model.named_parameters():
        device = device_of(name, whole)
        if device != DISK:
            needed[_named(device)] += weight.numel() * dtype.itemsize
    for device, size in needed.items():
        free = free_memory(torch.device(device))
        if free is not None and size > free:
            raise ValueError(
                f"not enough memory on {device}: its weights take {_gibibytes(size)} as "
                f"{str(dtype).removeprefix('torch.')}, and {_gibibytes(free)} are free; use a smaller dtype, or the "
                "device map auto, which puts the rest on other devices or on disk"
            )


def free_memory(device: torch.device) -> int | None:
    """Return the number of free bytes on ``device``; None if it is neither a CPU nor a CUDA device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return min(_limits()) if device.type == "cpu" else None


def return_freed_memory() -> None:
    """Give memory that this process has freed back to the system. It does nothing without the GNU C library."""
    # The C library keeps what loading has freed, since pieces that are still in use lie between. No later allocation
    # is of the sizes that loading needs, so the process would keep it for good.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _named(device: Device) -> str:
    return str(torch.device(device))


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _limits() -> Iterator[int]:
    """Yield the free bytes of the machine and of each control group (such as a container) that this process is in."""
    swap = psutil.swap_memory().free
    yield psutil.virtual_memory().available + swap
    for group in _groups():
        limit, used = (_number(group / f"memory.{name}") for name in ("max", "current"))
        if limit is not None and used is not None:
            cached = _figures(group / "memory.stat")  # the page cache, which the kernel frees when memory is needed
            yield limit - used + cached.get("active_file", 0) + cached.get("inactive_file", 0) + swap


def _groups() -> Iterator[Path]:
    for line in _text(_MEMBERSHIP).splitlines():
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            group = _CONTROL_GROUPS / path.lstrip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(_CONTROL_GROUPS))


def _figures(path: Path) -> dict[str, int]:
    """Read a file whose lines are a name and a number."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
