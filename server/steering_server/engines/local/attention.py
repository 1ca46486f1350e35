"""Attention over a packed step: many sequences end to end in one ``[1, tokens]`` input, each with its own past.

Registered with transformers as an attention implementation, so that the model itself stays a stock one. Sequences of
which the step has one token are attended for together; pieces of prompts one after the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from steering_profiles.models import Anatomy
from steering_server.engines.local.kv import LayerStore
from steering_server.engines.local.packed import DecodingRows, PackedStep
from steering_server.errors import EngineError

NAME = "steering_packed"

_MANY = 12
"""Decoding rows from which on plain matrix products are faster than the CPU's fused kernel."""
_LARGE = 2**14
"""The same for a piece of a prompt: its tokens times the tokens that they attend to."""
_TILE = 64
"""Tokens of a piece that are attended for at a time, so that their scores stay in the processor's cache."""


@dataclass
class _Attending:
    step: PackedStep
    layers: int = 0


_attending: ContextVar[_Attending | None] = ContextVar("attending", default=None)


@dataclass(frozen=True)
class Scoring:
    """How the scores of queries and keys come about."""

    scale: float
    window: int | None = None
    """How many tokens a query sees, itself and those right before it; None is all."""
    cap: float | None = None
    """Scores are squeezed to between minus and plus this."""

    def capped(self, scores: Tensor) -> Tensor:
        """Squeeze scaled scores."""
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap


def refusal(model: PreTrainedModel, anatomy: Anatomy) -> str | None:
    """Return why the engine cannot run ``model``; None where it can."""
    if type(model)._can_set_attn_implementation() or anatomy.family.attention_forward is not None:
        return None
    return (
        f"{type(model).__name__} computes attention by itself, not through transformers' attention interface, so the "
        "engine cannot give each sequence its own past; fitting, evaluating and exporting work"
    )


@contextmanager
def attending(step: PackedStep, layers: int) -> Iterator[None]:
    """Have the forward pass made inside this context, of a model of so many layers, attend as ``step`` says.

    Raises:
        EngineError: not every layer did.
    """
    current = _Attending(step)
    token = _attending.set(current)
    try:
        yield
    finally:
        _attending.reset(token)
    if current.layers != layers:
        raise EngineError(f"{current.layers} of {layers} layers attended to the sequences of their step")


def current_step() -> PackedStep | None:
    """Return the step that this thread computes; None outside of one."""
    current = _attending.get()
    return None if current is None else current.step


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Store the step's keys and values and attend each segment to its own sequence.

    ``query`` is ``[1, heads, tokens, head_dim]``, ``key`` and ``value`` ``[1, kv_heads, tokens, head_dim]``; returns
    ``[1, tokens, heads, head_dim]``. The mask transformers would make is not used: a segment's is causal, within the
    window if there is one. Where steering leaves nothing of the last layer's result, there are no scores: it is zeros.
    """
    current = _attending.get()
    layer_index = module.layer_idx
    if current is None:
        raise EngineError(f"attention {NAME} was called outside of a step")
    if not isinstance(layer_index, int):
        raise TypeError(f"{type(module).__name__} does not say which layer it is")
    current.layers += 1
    packed = current.step
    layer = packed.store.layers[layer_index]
    slots, positions = packed.slots.to(key.device), packed.positions[: len(packed.slots)].to(key.device)
    real = key.shape[2] - packed.padding
    layer.keys[slots, :, positions] = packed.to_store(key[0, :, :real].transpose(0, 1), layer_index)
    layer.values[slots, :, positions] = packed.to_store(value[0, :, :real].transpose(0, 1), layer_index)

    if packed.own and layer_index == len(packed.store.layers) - 1:
        return query.new_zeros(query.shape).transpose(1, 2), None
    scoring = Scoring(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    parts = [
        _attend_decoding(query[0, :, rows.start : rows.end], layer, rows, positions[rows.start : rows.end], scoring)
        for rows in packed.decoding
    ]
    for segment in packed.segments_at(layer_index):
        length = segment.position + segment.end - segment.start
        part = _attend(
            query[0, :, segment.start : segment.end],
            layer.keys[segment.slot, :, :length],
            layer.values[segment.slot, :, :length],
            segment.position,
            scoring,
        )
        parts.append(part)
    if packed.padding:
        parts.append(query.new_zeros(packed.padding, query.shape[1], query.shape[-1]))
    attended = packed.taken_over(parts[0] if len(parts) == 1 else torch.cat(parts), layer_index)
    return attended.unsqueeze(0), None


def _attend_decoding(
    query: Tensor, layer: LayerStore, rows: DecodingRows, positions: Tensor, scoring: Scoring
) -> Tensor:
    """Attend for all rows at once; from ``[heads, rows, head_dim]`` to ``[rows, heads, head_dim]``."""
    length = rows.mask.shape[-1]
    slots, mask = rows.slots.to(query.device), rows.mask.to(query.device)
    if scoring.window is not None and length > scoring.window:
        gone = torch.arange(length, device=query.device) <= (positions - scoring.window).unsqueeze(-1)
        mask = mask.masked_fill(gone.view(mask.shape), -torch.inf)
    keys = layer.keys[:, :, :length].index_select(0, slots)
    values = layer.values[:, :, :length].index_select(0, slots)
    # The heads of a group stand in for the queries of their key-value head, so that nothing need be repeated.
    heads, _, head_dim = query.shape
    grouped = query.transpose(0, 1).reshape(len(slots), keys.shape[1], -1, head_dim)
    by_products = scoring.cap is not None or (query.device.type == "cpu" and len(slots) >= _MANY)
    attended = (_attend_by_products if by_products else _attend_fused)(grouped, keys, values, mask, scoring)
    return attended.reshape(len(slots), heads, head_dim)


def _attend_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scoring.scale)


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
    """Attend by plain matrix products: for many rows of few queries faster than the CPU's fused kernel."""
    products = torch.matmul(query * scoring.scale, key.transpose(-1, -2))
    scores = scoring.capped(products.to(torch.promote_types(products.dtype, torch.float32))) + mask
    return torch.matmul(scores.softmax(dim=-1).to(value.dtype), value)


def _attend(query: Tensor, key: Tensor, value: Tensor, position: int, scoring: Scoring) -> Tensor:
    """Attend ``[heads, tokens, head_dim]`` to ``[kv_heads, length, head_dim]``; ``[tokens, heads, head_dim]``."""
    heads, tokens, head_dim = query.shape
    kv_heads, length, _ = key.shape
    by_products = query.device.type == "cpu" and tokens > 1 and tokens * length >= _LARGE
    if scoring.cap is not None or by_products:
        return _attend_in_tiles(query, key, value, position, scoring)
    if tokens == 1:
        # One query per head and nothing to mask; groups as above.
        seen = slice(max(0, length - (scoring.window or length)), length)
        grouped = query.view(1, kv_heads, heads // kv_heads, head_dim)
        attended = scaled_dot_product_attention(
            grouped, key[:, seen].unsqueeze(0), value[:, seen].unsqueeze(0), scale=scoring.scale
        )
        return attended.view(1, heads, head_dim)
    mask = None
    slides = scoring.window is not None and length > scoring.window
    if position or slides:
        mask = torch.ones(tokens, length, dtype=torch.bool, device=query.device).tril(diagonal=position)
    if mask is not None and scoring.window is not None and slides:
        mask = mask.triu(diagonal=position - scoring.window + 1)
    attended = scaled_dot_product_attention(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scoring.scale,
        enable_gqa=heads != kv_heads,
    )
    return attended[0].transpose(0, 1)


def _attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, position: int, scoring: Scoring) -> Tensor:
    """Do as :func:`_attend` by plain matrix products, a few tokens after the other."""
    heads, tokens, head_dim = query.shape
    kv_heads = len(key)
    grouped = (query * scoring.scale).view(kv_heads, heads // kv_heads, tokens, head_dim)
    attended = query.new_empty(tokens, heads, head_dim)
    for start in range(0, tokens, _TILE):
        end = min(start + _TILE, tokens)
        length = position + end
        first = 0 if scoring.window is None else max(0, position + start - scoring.window + 1)
        tile = grouped[:, :, start:end].reshape(kv_heads, -1, head_dim)
        products = torch.matmul(tile, key[:, first:length].transpose(-1, -2))
        scores = scoring.capped(products.view(heads, end - start, length - first))
        later = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).triu(diagonal=1)
        scores[..., position + start - first :].masked_fill_(later, -torch.inf)
        if scoring.window is not None:
            gone = torch.ones(end - start, length - first, dtype=torch.bool, device=query.device)
            scores.masked_fill_(gone.tril(diagonal=position + start - first - scoring.window), -torch.inf)
        weights = scores.softmax(dim=-1).view(kv_heads, -1, length - first)
        parts = torch.matmul(weights, value[:, first:length]).view(heads, end - start, head_dim)
        attended[start:end] = parts.transpose(0, 1)
    return attended


AttentionInterface.register(NAME, packed_attention)
