"""Keys and values of the running sequences: storage allocated once, one slot per sequence."""

import math
from dataclasses import dataclass

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
        self._free = list(range(slots - 1, -1, -1))

    @property
    def free_slots(self) -> int:
        """How many more sequences there is room for."""
        return len(self._free)

    def acquire(self) -> int:
        """Take a free slot."""
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give a slot back; what it holds is overwritten by the next user."""
        self._free.append(slot)


def _reserve(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device)
