"""Storage of keys and values: allocated once, one slot of full length per sequence."""

import math
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.models import LoadedModel, ModelWithAnatomy
from steering_server.errors import ConfigError


@dataclass(frozen=True)
class LayerStore:
    """One layer's keys and values, each ``[slots, kv_heads, length, head_dim]``.

    All finite at all times: what lies past a sequence's end is masked, but no mask hides a value that is no number.
    """

    keys: Tensor
    values: Tensor


def bytes_per_token(loaded: ModelWithAnatomy) -> int:
    """Return what one token's keys and values take, over all layers."""
    sizes = loaded.anatomy.sizes
    return 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * loaded.dtype.itemsize


def padded_length(loaded: ModelWithAnatomy, length: int) -> int:
    """Return ``length`` tokens rounded up to whole blocks, which begin at page boundaries."""
    block = _block(loaded)
    return -(-length // block) * block


def _block(loaded: ModelWithAnatomy) -> int:
    return mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, loaded.anatomy.sizes.head_dim * loaded.dtype.itemsize)


class KVStore:
    """Slots for ``slots`` sequences of up to ``length`` tokens.

    On a CPU it is address space that is reserved, and the system commits memory to what is written, in blocks of
    ``block`` tokens, until :meth:`discard` gives it back. On other devices all of it is memory at once.

    Raises:
        ConfigError: there is not that much memory.
    """

    def __init__(self, loaded: LoadedModel, slots: int, length: int) -> None:
        sizes = loaded.anatomy.sizes
        self.slots = slots
        self.length = length
        self.dtype = loaded.dtype
        self.block = _block(loaded)
        padded = padded_length(loaded, length)
        shape = (slots, sizes.kv_heads, padded, sizes.head_dim)
        try:
            self._areas = [
                _Area(shape, loaded.dtype, device) for device in loaded.layer_devices for _ in ("keys", "values")
            ]
        except (OSError, RuntimeError, MemoryError, OverflowError) as exc:
            size = slots * padded * bytes_per_token(loaded) / 2**30
            raise ConfigError(
                f"there is no memory for {size:.1f} GiB of keys and values ({slots} sequences of {length} tokens); "
                "lower max_batch or max_model_len"
            ) from exc
        tensors = [area.tensor for area in self._areas]
        self.layers = tuple(LayerStore(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True))

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy the state of tokens ``start..end`` from one slot to another, in every layer."""
        for area in self._areas:
            area.tensor[target, :, start:end] = area.tensor[source, :, start:end]

    def discard(self, slot: int) -> None:
        """Zero a slot and, where the device can, give its memory back."""
        for area in self._areas:
            area.discard(slot)


class _Area:
    """One zeroed tensor whose first dimension is slots."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._pages: mmap.mmap | None = None
        if device.type == "cpu" and hasattr(mmap, "MADV_DONTNEED"):
            # MAP_NORESERVE is younger than the oldest Python served; the number is Linux's.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
            self._pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=flags)
            self.tensor = torch.frombuffer(self._pages, dtype=dtype).view(shape)
        else:
            self.tensor = torch.zeros(shape, dtype=dtype, device=device)

    def discard(self, slot: int) -> None:
        if self._pages is None:
            self.tensor[slot].zero_()
        else:
            size = self.tensor[slot].nbytes
            # On private pages this drops the content; what is read next is zeros.
            self._pages.madvise(mmap.MADV_DONTNEED, slot * size, size)
