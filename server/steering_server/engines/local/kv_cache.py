"""The KV cache: keys and values of all layers, allocated once, with one slot of full length per sequence."""

import math
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.models import LoadedModel, ModelWithAnatomy
from steering_server.engines.local import kernels
from steering_server.errors import ConfigError

BLOCK = 128
"""Tokens in a block of a slot on accelerators, that of FlexAttention; slots there are whole blocks."""


@dataclass(frozen=True)
class LayerKVCache:
    """Keys and values of one layer, each ``[slots, kv_heads, length, head_dim]``.

    All values are finite at all times: positions past a sequence's end are masked, but a mask does not hide a NaN.
    """

    keys: Tensor
    values: Tensor


def bytes_per_token(loaded: ModelWithAnatomy) -> int:
    """Return the bytes that one token takes in the KV cache, over all layers."""
    sizes = loaded.anatomy.sizes
    return 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * loaded.dtype.itemsize


def padded_length(loaded: ModelWithAnatomy, length: int) -> int:
    """Return ``length`` tokens rounded up to whole blocks, which begin at page boundaries."""
    block = _block_size(loaded)
    return -(-length // block) * block


def _block_size(loaded: ModelWithAnatomy) -> int:
    if isinstance(loaded, LoadedModel) and any(device.type != "cpu" for device in loaded.layer_devices):
        return BLOCK
    return mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, loaded.anatomy.sizes.head_dim * loaded.dtype.itemsize)


def _kernels_refused(loaded: LoadedModel) -> str | None:
    sizes = loaded.anatomy.sizes
    refusals = (
        kernels.refusal(device, loaded.dtype, sizes.heads, sizes.kv_heads, sizes.head_dim)
        for device in loaded.layer_devices
    )
    return next(filter(None, refusals), None)


class KVCache:
    """KV cache with ``slots`` slots, each for one sequence of up to ``length`` tokens.

    On a CPU it reserves address space, and the system commits memory to what is written, in blocks of ``block_size``
    tokens, until :meth:`discard` gives it back. On other devices all of it is allocated at once.

    Raises:
        ConfigError: there is not enough memory.
    """

    def __init__(self, loaded: LoadedModel, slots: int, length: int) -> None:
        sizes = loaded.anatomy.sizes
        self.slots = slots
        self.length = length
        self.dtype = loaded.dtype
        self.block_size = _block_size(loaded)
        self.kernels_refused = _kernels_refused(loaded)
        """Why PyTorch's kernels write and read it, not the compiled ones; None where those do."""
        padded = padded_length(loaded, length)
        self.spare_slot = slots
        """One more slot, of no sequence: for what fills a batch up."""
        self.is_attended_in_place = False
        """Whether decoding attends by :mod:`.slotted_attention`; the runner finds out whether that works."""
        shape = (slots + 1, sizes.kv_heads, padded, sizes.head_dim)
        try:
            self._buffers = [
                _Buffer(shape, loaded.dtype, device) for device in loaded.layer_devices for _ in ("keys", "values")
            ]
        except (OSError, RuntimeError, MemoryError, OverflowError) as exc:
            size = slots * padded * bytes_per_token(loaded) / 2**30
            raise ConfigError(
                f"not enough memory for {size:.1f} GiB of KV cache ({slots} sequences of {length} tokens); lower "
                "max_num_seqs or max_model_len"
            ) from exc
        tensors = [buffer.tensor for buffer in self._buffers]
        self.layers = tuple(LayerKVCache(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True))

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy tokens ``start..end`` from one slot to another, in every layer."""
        for buffer in self._buffers:
            buffer.tensor[target, :, start:end] = buffer.tensor[source, :, start:end]

    def discard(self, slot: int) -> None:
        """Zero a slot and, where the device can, give its memory back."""
        for buffer in self._buffers:
            buffer.discard(slot)


class _Buffer:
    """One zeroed tensor whose first dimension is slots."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._pages: mmap.mmap | None = None
        if device.type == "cpu" and hasattr(mmap, "MADV_DONTNEED"):
            # MAP_NORESERVE was added after the oldest supported Python; the number is Linux's.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
            self._pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=flags)
            self.tensor = torch.frombuffer(self._pages, dtype=dtype).view(shape)
        else:
            # The slots of one head lie one after another, see slotted_attention.
            slots, heads, *rest = shape
            self.tensor = torch.zeros(heads, slots, *rest, dtype=dtype, device=device).transpose(0, 1)

    def discard(self, slot: int) -> None:
        if self._pages is None:
            self.tensor[slot].zero_()
        else:
            size = self.tensor[slot].nbytes
            # This drops the content of private pages; they read as zeros afterwards.
            self._pages.madvise(mmap.MADV_DONTNEED, slot * size, size)
