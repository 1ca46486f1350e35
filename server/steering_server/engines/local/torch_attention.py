"""Attention over a ragged batch with PyTorch's kernels, where the compiled ones do not serve: on GPUs, in float16.

Which kernel computes a sequence, and how it orders sums, depends on the batch, so results are not batch invariant.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.kv_cache import LayerKVCache
from steering_server.engines.local.ragged import DecodeGroup, RaggedBatch
from steering_server.engines.local.slotted_attention import rounded

_MANY_SEQUENCES = 12
"""Number of sequences in a decode group from which plain matrix products are faster than the CPU's fused kernel."""
_LARGE_CHUNK = 2**14
"""The same threshold for a prompt chunk: its tokens times the tokens that they attend to."""
_TILE = 64
"""Number of a chunk's tokens attended for at a time, so that their scores stay in the processor's cache."""


def attend(query: Tensor, cache: LayerKVCache, batch: RaggedBatch, layer: int, options: ScoreOptions) -> Tensor:
    """Attend each segment to its own slot.

    ``query`` is ``[heads, tokens, head_dim]``; returns ``[tokens that the layer computes, heads, head_dim]``.
    """
    positions = batch.positions[: len(batch.slots)].to(query.device)
    decode = _decode_in_place if batch.kv_cache.is_attended_in_place else _decode
    parts = [
        decode(query[:, group.start : group.end], cache, group, positions[group.start : group.end], options)
        for group in batch.decode_groups
    ]
    for segment in batch.segments_at(layer):
        length = segment.position + segment.end - segment.start
        part = _prefill(
            query[:, segment.start : segment.end],
            cache.keys[segment.slot, :, :length],
            cache.values[segment.slot, :, :length],
            segment.position,
            options,
        )
        parts.append(part)
    if batch.padding:
        parts.append(query.new_zeros(batch.padding, query.shape[0], query.shape[-1]))
    return batch.expand_attended(parts[0] if len(parts) == 1 else torch.cat(parts), layer)


def _decode(query: Tensor, cache: LayerKVCache, group: DecodeGroup, positions: Tensor, options: ScoreOptions) -> Tensor:
    """Attend for all sequences of a group at once.

    From ``[heads, sequences, head_dim]`` to ``[sequences, heads, head_dim]``.
    """
    length = group.mask.shape[-1]
    slots, mask = group.slots.to(query.device), group.mask.to(query.device)
    if options.window is not None and length > options.window:
        outside = torch.arange(length, device=query.device) <= (positions - options.window).unsqueeze(-1)
        mask = mask.masked_fill(outside.view(mask.shape), -torch.inf)
    keys = cache.keys[:, :, :length].index_select(0, slots)
    values = cache.values[:, :, :length].index_select(0, slots)
    # The query heads of a key-value head take the place of its queries, so that keys and values need not be repeated.
    heads, _, head_dim = query.shape
    grouped = query.transpose(0, 1).reshape(len(slots), keys.shape[1], -1, head_dim)
    by_products = options.softcap is not None or (query.device.type == "cpu" and len(slots) >= _MANY_SEQUENCES)
    attended = (_attend_by_products if by_products else _attend_fused)(grouped, keys, values, mask, options)
    return attended.reshape(len(slots), heads, head_dim)


def _decode_in_place(
    query: Tensor, cache: LayerKVCache, group: DecodeGroup, positions: Tensor, options: ScoreOptions
) -> Tensor:
    """Compute the same as :func:`_decode` without a copy of keys and values."""
    sequences = query.shape[1]
    padded = pad(query.transpose(0, 1), (0, 0, 0, 0, 0, rounded(sequences) - sequences))
    return group.in_place.attend(padded, cache, options)[:sequences]


def _attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, options: ScoreOptions) -> Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=options.scale)


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, options: ScoreOptions) -> Tensor:
    """Attend with plain matrix products, which for many sequences of one query beat the CPU's fused kernel."""
    products = torch.matmul(query * options.scale, key.transpose(-1, -2))
    scores = options.capped(products.to(torch.promote_types(products.dtype, torch.float32))) + mask
    return torch.matmul(scores.softmax(dim=-1).to(value.dtype), value)


def _prefill(query: Tensor, key: Tensor, value: Tensor, position: int, options: ScoreOptions) -> Tensor:
    """Attend ``[heads, tokens, head_dim]`` to ``[kv_heads, length, head_dim]``; returns ``[tokens, heads, head_dim]``.

    ``position`` is that of the first token in its sequence.
    """
    heads, tokens, head_dim = query.shape
    kv_heads, length, _ = key.shape
    by_products = query.device.type == "cpu" and tokens > 1 and tokens * length >= _LARGE_CHUNK
    if options.softcap is not None or by_products:
        return _prefill_in_tiles(query, key, value, position, options)
    if tokens == 1:
        # One query per head needs no mask; heads are grouped as in decoding.
        visible = slice(max(0, length - (options.window or length)), length)
        grouped = query.view(1, kv_heads, heads // kv_heads, head_dim)
        attended = scaled_dot_product_attention(
            grouped, key[:, visible].unsqueeze(0), value[:, visible].unsqueeze(0), scale=options.scale
        )
        return attended.view(1, heads, head_dim)
    mask = None
    slides = options.window is not None and length > options.window
    if position or slides:
        mask = torch.ones(tokens, length, dtype=torch.bool, device=query.device).tril(diagonal=position)
    if mask is not None and options.window is not None and slides:
        mask = mask.triu(diagonal=position - options.window + 1)
    attended = scaled_dot_product_attention(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None,
        scale=options.scale,
        enable_gqa=heads != kv_heads,
    )
    return attended[0].transpose(0, 1)


def _prefill_in_tiles(query: Tensor, key: Tensor, value: Tensor, position: int, options: ScoreOptions) -> Tensor:
    """Compute the same as :func:`_prefill` with plain matrix products, ``_TILE`` tokens at a time."""
    heads, tokens, head_dim = query.shape
    kv_heads = len(key)
    grouped = (query * options.scale).view(kv_heads, heads // kv_heads, tokens, head_dim)
    attended = query.new_empty(tokens, heads, head_dim)
    for start in range(0, tokens, _TILE):
        end = min(start + _TILE, tokens)
        length = position + end
        first = 0 if options.window is None else max(0, position + start - options.window + 1)
        tile = grouped[:, :, start:end].reshape(kv_heads, -1, head_dim)
        products = torch.matmul(tile, key[:, first:length].transpose(-1, -2))
        scores = options.capped(products.view(heads, end - start, length - first))
        later = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).triu(diagonal=1)
        scores[..., position + start - first :].masked_fill_(later, -torch.inf)
        if options.window is not None:
            outside = torch.ones(end - start, length - first, dtype=torch.bool, device=query.device)
            scores.masked_fill_(outside.tril(diagonal=position + start - first - options.window), -torch.inf)
        weights = scores.softmax(dim=-1).view(kv_heads, -1, length - first)
        parts = torch.matmul(weights, value[:, first:length]).view(heads, end - start, head_dim)
        attended[start:end] = parts.transpose(0, 1)
    return attended
