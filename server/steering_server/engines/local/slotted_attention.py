"""Attention of one new token per sequence over the slots of the KV cache, in place.

FlexAttention reads the blocks of keys and values that belong to each sequence where they are: nothing is gathered, and
shapes do not depend on lengths, so that the kernels can be captured in a CUDA graph.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.kv_cache import BLOCK, LayerKVCache


def rounded(sequences: int) -> int:
    """Round a number of sequences up to one of those that kernels are compiled and captured for."""
    return 1 << (sequences - 1).bit_length() if sequences <= 8 else -(-sequences // 8) * 8


class SlottedAttention:
    """The sequences of one decoding step. The masks are computed once per sliding window, not in every layer."""

    def __init__(self, slots: Tensor, positions: Tensor) -> None:
        """``slots`` and ``positions`` are those of the new tokens, ``[sequences]``."""
        self._slots = slots
        self._positions = positions
        self._masks: dict[int | None, BlockMask] = {}

    def attend(self, query: Tensor, cache: LayerKVCache, options: ScoreOptions) -> Tensor:
        """Attend each token of ``query``, ``[sequences, heads, head_dim]``, to its slot; returns the same shape."""
        keys, values = _flat(cache.keys), _flat(cache.values)
        if options.window not in self._masks:
            slots, _, length, _ = cache.keys.shape
            self._masks[options.window] = block_mask(
                self._slots, self._positions, slots=slots, length=length, window=options.window
            )
        attention = _compiled() if query.device.type == "cuda" else _uncompiled
        attended = attention(
            query.unsqueeze(2),
            keys,
            values,
            score_mod=None if options.softcap is None else _softcap(options.softcap),
            block_mask=self._masks[options.window],
            scale=options.scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
        return attended.squeeze(2)


def block_mask(slots_of: Tensor, positions: Tensor, *, slots: int, length: int, window: int | None) -> BlockMask:
    """Return which of ``slots * length`` cached positions, one slot after another, each sequence attends to.

    ``slots_of`` and ``positions`` are the slot and the position of each sequence's new token, ``[sequences]``.
    """
    first = torch.zeros_like(positions) if window is None else (positions - window + 1).clamp(min=0)

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        position = key - slots_of[batch] * length
        return (position >= first[batch]) & (position <= positions[batch])

    blocks = -(-length // BLOCK)
    count = positions // BLOCK - first // BLOCK + 1
    begins = (slots_of * length + first) // BLOCK
    every = torch.arange(blocks, device=positions.device)
    indices = (begins.unsqueeze(-1) + every).clamp(max=max(0, slots * length // BLOCK - 1))
    return BlockMask.from_kv_blocks(
        count.to(torch.int32).view(-1, 1, 1),
        indices.to(torch.int32).view(-1, 1, 1, blocks),
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=is_visible,
        seq_lengths=(1, slots * length),
        compute_q_blocks=False,
    )


def _flat(cached: Tensor) -> Tensor:
    """Turn ``[slots, kv_heads, length, head_dim]`` into ``[1, kv_heads, slots * length, head_dim]``.

    On accelerators, where slots are laid out for this, nothing is copied.
    """
    return cached.transpose(0, 1).flatten(1, 2).unsqueeze(0)


@cache
def _compiled() -> Callable[..., Tensor]:
    # One for each number of sequences and window; from the limit on, which is 8, every call would run uncompiled.
    torch._dynamo.config.recompile_limit = max(256, torch._dynamo.config.recompile_limit)
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled


@cache
def _softcap(cap: float) -> Callable[..., Tensor]:
    """Return the score function of one cap, the same each time so that it is compiled once."""

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


_uncompiled: Callable[..., Tensor] = flex_attention
