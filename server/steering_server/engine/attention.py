"""Attention over a packed step: many sequences end to end in one ``[1, tokens]`` input, each with its own past.

Registered with transformers as an attention implementation, so that the model itself stays a stock one. Sequences of
which the step has one token are attended for together; pieces of prompts one after the other.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from steering_server.engine.kv import LayerStore
from steering_server.engine.packed import DecodingRows, PackedStep

NAME = "steering_packed"

_MANY = 12
"""Decoding rows from which on plain matrix products are faster than the CPU's fused kernel."""
_LARGE = 2**14
"""The same for a piece of a prompt: its tokens times the tokens that they attend to."""
_TILE = 64
"""Tokens of a piece that are attended for at a time, so that their scores stay in the processor's cache."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: PackedStep,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Store the step's keys and values and attend each segment to its own sequence.

    ``query`` is ``[1, heads, tokens, head_dim]``, ``key`` and ``value`` ``[1, kv_heads, tokens, head_dim]``; returns
    ``[1, tokens, heads, head_dim]``. The mask transformers would make is not used: a segment's is plain causal.
    """
    layer_index = module.layer_idx
    if not isinstance(layer_index, int):
        raise TypeError(f"{type(module).__name__} does not say which layer it is")
    layer = packed.store.layers[layer_index]
    slots, positions = packed.slots.to(key.device), packed.positions[: len(packed.slots)].to(key.device)
    real = key.shape[2] - packed.padding
    layer.keys[slots, :, positions] = packed.to_store(key[0, :, :real].transpose(0, 1), layer_index)
    layer.values[slots, :, positions] = packed.to_store(value[0, :, :real].transpose(0, 1), layer_index)

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts = [_attend_decoding(query[0, :, rows.start : rows.end], layer, rows, scale) for rows in packed.decoding]
    for segment in packed.segments_at(layer_index):
        length = segment.position + segment.end - segment.start
        attended = _attend(
            query[0, :, segment.start : segment.end],
            layer.keys[segment.slot, :, :length],
            layer.values[segment.slot, :, :length],
            segment.position,
            scale,
        )
        parts.append(attended)
    if packed.padding:
        parts.append(query.new_zeros(packed.padding, query.shape[1], query.shape[-1]))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0), None


def _attend_decoding(query: Tensor, layer: LayerStore, rows: DecodingRows, scale: float) -> Tensor:
    """Attend for all rows at once; from ``[heads, rows, head_dim]`` to ``[rows, heads, head_dim]``."""
    length = rows.mask.shape[-1]
    slots, mask = rows.slots.to(query.device), rows.mask.to(query.device)
    keys = layer.keys[:, :, :length].index_select(0, slots)
    values = layer.values[:, :, :length].index_select(0, slots)
    # The heads of a group stand in for the queries of their key-value head, so that nothing need be repeated.
    heads, _, head_dim = query.shape
    grouped = query.transpose(0, 1).reshape(len(slots), keys.shape[1], -1, head_dim)
    by_products = query.device.type == "cpu" and len(slots) >= _MANY
    attended = (_attend_by_products if by_products else _attend_fused)(grouped, keys, values, mask, scale)
    return attended.reshape(len(slots), heads, head_dim)


def _attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attend by plain matrix products: for many rows of few queries faster than the CPU's fused kernel."""
    scores = torch.matmul(query * scale, key.transpose(-1, -2)).float() + mask
    return torch.matmul(scores.softmax(dim=-1).to(value.dtype), value)


def _attend(query: Tensor, key: Tensor, value: Tensor, position: int, scale: float) -> Tensor:
    """Attend ``[heads, tokens, head_dim]`` to ``[kv_heads, length, head_dim]``; ``[tokens, heads, head_dim]``."""
    heads, tokens, head_dim = query.shape
    kv_heads, length, _ = key.shape
    if tokens == 1:
        # One query per head and nothing to mask; groups as above.
        grouped = query.view(1, kv_heads, heads // kv_heads, head_dim)
        attended = scaled_dot_product_attention(grouped, key.unsqueeze(0), value.unsqueeze(0), scale=scale)
        return attended.view(1, heads, head_dim)
    if query.device.type == "cpu" and tokens * length >= _LARGE:
        return _attend_in_tiles(query, key, value, position, scale)
    mask = None
    if position:
        mask = torch.ones(tokens, length, dtype=torch.bool, device=query.device).tril(diagonal=position)
    attended = scaled_dot_product_attention(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=heads != kv_heads,
    )
    return attended[0].transpose(0, 1)


def _attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, position: int, scale: float) -> Tensor:
    """Do as :func:`_attend` by plain matrix products, a few tokens after the other."""
    heads, tokens, head_dim = query.shape
    kv_heads = len(key)
    grouped = (query * scale).view(kv_heads, heads // kv_heads, tokens, head_dim)
    attended = query.new_empty(tokens, heads, head_dim)
    for start in range(0, tokens, _TILE):
        end = min(start + _TILE, tokens)
        length = position + end
        tile = grouped[:, :, start:end].reshape(kv_heads, -1, head_dim)
        scores = torch.matmul(tile, key[:, :length].transpose(-1, -2)).view(heads, end - start, length)
        later = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).triu(diagonal=1)
        scores[..., position + start :].masked_fill_(later, -torch.inf)
        weights = scores.softmax(dim=-1).view(kv_heads, -1, length)
        parts = torch.matmul(weights, value[:, :length]).view(heads, end - start, head_dim)
        attended[start:end] = parts.transpose(0, 1)
    return attended


AttentionInterface.register(NAME, packed_attention)
