"""Attention over a packed step: many sequences end to end in one ``[1, tokens]`` input, each with its own past.

Registered with transformers as an attention implementation, so that the model itself stays a stock one. Sequences of
which the step has one token are attended for together, over the slots from the first to the last of them, where those
lie close enough; pieces of prompts one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from steering_server.engine.kv import KVStore, LayerStore

NAME = "steering_packed"

_SPARSEST = 2
"""Slots per decoding row beyond which rows are attended for one by one rather than over all slots between them."""


@dataclass(frozen=True)
class Segment:
    """The tokens ``start..end`` of the step, which stand at ``position`` onwards in the sequence that owns ``slot``."""

    start: int
    end: int
    slot: int
    position: int


@dataclass(frozen=True)
class DecodingRows:
    """The sequences of which a step has one token, and the range of slots that holds them."""

    tokens: Tensor
    """``[rows]``: where each one's token stands in the step."""
    places: Tensor
    """``[rows]``: each one's slot, counted from the first of the range."""
    slots: slice
    mask: Tensor
    """``[slots, 1, 1, length]``, bool: which stored positions each slot's query sees."""


@dataclass(frozen=True)
class PackedStep:
    """Which sequences the tokens of one forward pass belong to."""

    store: KVStore
    decoding: DecodingRows | None
    segments: tuple[Segment, ...]
    """The segments that ``decoding`` does not cover."""
    slots: Tensor
    """``[tokens]``: the slot of each token."""
    positions: Tensor
    """``[tokens]``: the position of each token in its sequence."""


def pack(store: KVStore, segments: Sequence[Segment], device: torch.device) -> PackedStep:
    """Lay out a step of ``segments``, which follow each other without a gap."""
    slots = [segment.slot for segment in segments for _ in range(segment.start, segment.end)]
    positions = [s.position + index for s in segments for index in range(s.end - s.start)]
    single = [segment for segment in segments if segment.end - segment.start == 1]
    first = min((segment.slot for segment in single), default=0)
    span = max((segment.slot for segment in single), default=0) - first + 1
    together = len(single) > 1 and span <= _SPARSEST * len(single)
    return PackedStep(
        store=store,
        decoding=_decoding(single, first, span, device) if together else None,
        segments=tuple(s for s in segments if not (together and s.end - s.start == 1)),
        slots=torch.tensor(slots, device=device),
        positions=torch.tensor(positions, device=device),
    )


def _decoding(rows: Sequence[Segment], first: int, span: int, device: torch.device) -> DecodingRows:
    places = torch.tensor([row.slot - first for row in rows], device=device)
    seen = torch.zeros(span, dtype=torch.long, device=device)
    seen[places] = torch.tensor([row.position for row in rows], device=device)
    length = max(row.position for row in rows) + 1
    # A slot in between that has no row here sees its first position: its output is not used, but must not be NaN.
    mask = torch.arange(length, device=device) <= seen.unsqueeze(-1)
    return DecodingRows(
        tokens=torch.tensor([row.start for row in rows], device=device),
        places=places,
        slots=slice(first, first + span),
        mask=mask.view(span, 1, 1, length),
    )


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
    if packed.decoding is not None:
        _attend_decoding(query[0].transpose(0, 1), layer, packed.decoding, scaling, output)
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


def _attend_decoding(
    query: Tensor, layer: LayerStore, rows: DecodingRows, scaling: float | None, output: Tensor
) -> None:
    """Attend every decoding row at once; ``query`` and ``output`` are ``[tokens, heads, head_dim]``."""
    length = rows.mask.shape[-1]
    tokens, places = rows.tokens.to(query.device), rows.places.to(query.device)
    keys, values = layer.keys[rows.slots, :, :length], layer.values[rows.slots, :, :length]
    span, kv_heads, _, head_dim = keys.shape
    # The heads of a group stand in for the queries of their key-value head, so that nothing need be repeated.
    grouped = query.new_zeros(span, kv_heads, query.shape[1] // kv_heads, head_dim)
    grouped[places] = query[tokens].view(len(places), kv_heads, -1, head_dim)
    attended = scaled_dot_product_attention(grouped, keys, values, attn_mask=rows.mask.to(query.device), scale=scaling)
    output[tokens] = attended[places].reshape(len(places), -1, head_dim)


def _attend(query: Tensor, key: Tensor, value: Tensor, position: int, scaling: float | None) -> Tensor:
    """Attend ``[heads, tokens, head_dim]`` to ``[kv_heads, length, head_dim]``; ``[tokens, heads, head_dim]``."""
    heads, tokens, head_dim = query.shape
    kv_heads, length, _ = key.shape
    if tokens == 1:
        # One query per head and nothing to mask; groups as above.
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
