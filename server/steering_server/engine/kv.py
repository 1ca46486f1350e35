"""Keys and values of the running sequences: storage allocated once, one slot per sequence."""

import heapq
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steering_profiles.models import LoadedModel
from steering_server.errors import ConfigError


@dataclass(frozen=True)
class LayerStore:
    """One layer's keys and values, each ``[slots, kv_heads, length, head_dim]``."""

    keys: Tensor
    values: Tensor


class KVStore:
    """Slots for ``slots`` sequences of up to ``length`` tokens.

    The memory is reserved at once; on a CPU the system commits a page of it when it is first written.

    Raises:
        ConfigError: there is not that much memory.
    """

    def __init__(self, loaded: LoadedModel, slots: int, length: int) -> None:
        sizes = loaded.anatomy.sizes
        shape = (slots, sizes.kv_heads, length, sizes.head_dim)
        devices = [next(layer.head_output.parameters()).device for layer in loaded.anatomy.layers]
        try:
            self.layers = tuple(LayerStore(*_reserve(shape, loaded.dtype, device)) for device in devices)
        except (RuntimeError, MemoryError) as exc:
            size = 2 * len(devices) * math.prod(shape) * loaded.dtype.itemsize / 2**30
            raise ConfigError(
                f"there is no memory for {size:.1f} GiB of keys and values ({slots} sequences of {length} tokens); "
                "lower max_batch or max_model_len"
            ) from exc
        self.length = length
        self._free = list(range(slots))  # a heap

    @property
    def free_slots(self) -> int:
        """How many more sequences there is room for."""
        return len(self._free)

    def acquire(self) -> int:
        """Take the first free slot, so that those in use lie close together."""
        return heapq.heappop(self._free)

    def wipe(self, slot: int, length: int) -> None:
        """Zero the first ``length`` tokens of a slot, which may be no numbers: no mask would hide those."""
        for layer in self.layers:
            layer.keys[slot, :, :length].zero_()
            layer.values[slot, :, :length].zero_()

    def release(self, slot: int) -> None:
        """Give a slot back; what it holds is overwritten, or masked, for the next user."""
        heapq.heappush(self._free, slot)


def _reserve(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return zeroed keys and values. Zeroed, since what lies past a sequence's end is masked but must be a number."""
    return _zeros(shape, dtype, device), _zeros(shape, dtype, device)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # numpy asks the system for pages that are zero already, and so does not touch them; torch.zeros writes every byte
    pages = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(pages).view(dtype).view(shape)
