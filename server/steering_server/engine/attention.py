"""Attention over a packed step: many sequences end to end in one ``[1, tokens]`` input, each with its own past.

Registered with transformers as an attention implementation, so that the model itself stays a stock one. Each sequence
is attended for by itself and at its own length: what a row computes does not depend on its neighbours.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from steering_server.engine.kv import KVStore

NAME = "steering_packed"


@dataclass(frozen=True)
class Segment:
    """The tokens ``start..end`` of the step, which stand at ``position`` onwards in the sequence that owns ``slot``."""

    start: int
    end: int
    slot: int
    position: int


@dataclass(frozen=True)
class PackedStep:
    """Which sequences the tokens of one forward pass belong to."""

    store: KVStore
    segments: tuple[Segment, ...]
    slots: Tensor
    """``[tokens]``: the slot of each token."""
    positions: Tensor
    """``[tokens]``: the position of each token in its sequence."""


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
    slots, positions = packed.slots.to(key.device), packed.positions.to(key.device)
    layer.keys[slots, :, positions] = key[0].transpose(0, 1)
    layer.values[slots, :, positions] = value[0].transpose(0, 1)

    output = torch.empty_like(query[0].transpose(0, 1))
    for segment in packed.segments:
        length = segment.position + segment.end - segment.start
        output[segment.start : segment.end] = _attend(
            query[0, :, segment.start : segment.end],
            layer.keys[segment.slot, :, :length],
            layer.values[segment.slot, :, :length],
            segment.position,
            scaling,
        )
    return output.unsqueeze(0), None


def _attend(query: Tensor, key: Tensor, value: Tensor, position: int, scaling: float | None) -> Tensor:
    """Attend ``[heads, tokens, head_dim]`` to ``[kv_heads, length, head_dim]``; ``[tokens, heads, head_dim]``."""
    heads, tokens, head_dim = query.shape
    kv_heads, length, _ = key.shape
    if tokens == 1:
        # One query per head and nothing to mask: the heads of a group stand in for the queries of their key-value head.
        grouped = query.view(1, kv_heads, heads // kv_heads, head_dim)
        attended = scaled_dot_product_attention(grouped, key.unsqueeze(0), value.unsqueeze(0), scale=scaling)
        return attended.view(1, heads, head_dim)
    mask = None
    if position:
        mask = torch.ones(tokens, length, dtype=torch.bool, device=query.device).tril(diagonal=position)
    attended = scaled_dot_product_attention(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=heads != kv_heads,
    )
    return attended[0].transpose(0, 1)


AttentionInterface.register(NAME, packed_attention)
