"""Keys and values of the running sequences: storage allocated once, one slot per sequence."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.models import LoadedModel


@dataclass(frozen=True)
class LayerStore:
    """One layer's keys and values, each ``[slots, kv_heads, length, head_dim]``."""

    keys: Tensor
    values: Tensor


class KVStore:
    """Slots for ``slots`` sequences of up to ``length`` tokens.

    The memory is reserved at once; on a CPU the system commits a page of it when it is first written.
    """

    def __init__(self, loaded: LoadedModel, slots: int, length: int) -> None:
        sizes = loaded.anatomy.sizes
        shape = (slots, sizes.kv_heads, length, sizes.head_dim)
        self.layers = tuple(
            LayerStore(
                torch.empty(shape, dtype=loaded.dtype, device=device),
                torch.empty(shape, dtype=loaded.dtype, device=device),
            )
            for device in (next(layer.head_output.parameters()).device for layer in loaded.anatomy.layers)
        )
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
