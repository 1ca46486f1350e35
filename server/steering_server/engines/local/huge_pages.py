"""Memory for weights, in huge pages where the system has them.

With few tokens a step takes as long as reading every weight. In pages of 4 KiB the processor translates an address
every 4 KiB and fetches nothing ahead past it.
"""

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

_CHUNK = 2**26
"""Bytes that are asked of the system at once; those that are never written take no memory."""
_HUGE_PAGE = 2**21
_ALIGNMENT = 64
"""Bytes; the widest vectors of processors."""


class HugePages:
    """Allocates tensors one after the other. Memory goes back to the system with the last tensor of a chunk."""

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor on the CPU."""
        size = math.prod(shape) * dtype.itemsize
        if size > len(self._rest):
            self._rest = _chunk(max(size, _CHUNK))
        piece, self._rest = self._rest[:size], self._rest[size + -size % _ALIGNMENT :]
        return piece.view(dtype).view(torch.Size(shape))

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a contiguous copy of ``tensor``."""
        return self.empty(tensor.shape, tensor.dtype).copy_(tensor)


def _chunk(size: int) -> Tensor:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size + -size % _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel that was built without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)
