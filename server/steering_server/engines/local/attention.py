"""Attention over a ragged batch: sequences concatenated in one ``[1, tokens]`` input, each with its own KV cache.

It is registered with transformers as an attention implementation, so the model itself is the stock one. Sequences with
one token in the batch (decode) are computed together, prompt chunks (prefill) one after another.
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
from steering_server.engines.local.kv_cache import LayerKVCache
from steering_server.engines.local.ragged import DecodeGroup, RaggedBatch
from steering_server.errors import EngineError

NAME = "steering_ragged"

_MANY_SEQUENCES = 12
"""Number of sequences in a decode group from which plain matrix products are faster than the CPU's fused kernel."""
_LARGE_CHUNK = 2**14
"""The same threshold for a prompt chunk: its tokens times the tokens that they attend to."""
_TILE = 64
"""Number of a chunk's tokens attended for at a time, so that their scores stay in the processor's cache."""


@dataclass
class _ForwardPass:
    batch: RaggedBatch
    layers: int = 0
    """Number of layers that have computed attention so far."""


_current_pass: ContextVar[_ForwardPass | None] = ContextVar("current_pass", default=None)


@dataclass(frozen=True)
class ScoreOptions:
    """Parameters of the attention scores."""

    scale: float
    window: int | None = None
    """Number of tokens a query sees: itself and those right before it; None for all."""
    softcap: float | None = None
    """Bound of the scores' absolute value, applied with tanh; None for no bound."""

    def capped(self, scores: Tensor) -> Tensor:
        """Apply the softcap to scaled scores."""
        return scores if self.softcap is None else torch.tanh(scores / self.softcap) * self.softcap


def refusal(model: PreTrainedModel, anatomy: Anatomy) -> str | None:
    """Return the reason why the engine cannot run ``model``, or None if it can."""
    if type(model)._can_set_attn_implementation() or anatomy.family.attention_forward is not None:
        return None
    return (
        f"{type(model).__name__} computes attention by itself, not through transformers' attention interface, so the "
        "engine cannot give each sequence its own KV cache; fitting, evaluating and exporting work"
    )


@contextmanager
def forward_context(batch: RaggedBatch, layers: int) -> Iterator[None]:
    """Make the forward pass inside this context, of a model with ``layers`` layers, attend as ``batch`` describes.

    Raises:
        EngineError: some layer did not use this attention implementation.
    """
    current = _ForwardPass(batch)
    token = _current_pass.set(current)
    try:
        yield
    finally:
        _current_pass.reset(token)
    if current.layers != layers:
        raise EngineError(f"{current.layers} of {layers} layers attended to the sequences of their batch")


def current_batch() -> RaggedBatch | None:
    """Return the batch that this thread computes, or None outside of a forward pass."""
    current = _current_pass.get()
    return None if current is None else current.batch


def ragged_attention(
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
    """Write the batch's keys and values to the KV cache and attend each segment to its own sequence.

    ``query`` is ``[1, heads, tokens, head_dim]``, ``key`` and ``value`` ``[1, kv_heads, tokens, head_dim]``; returns
    ``[1, tokens, heads, head_dim]``. The mask made by transformers is not used: each segment is causal, within the
    sliding window if there is one. In the last layer, where self-only attention replaces the whole result for every
    token, no scores are computed and zeros are returned.
    """
    current = _current_pass.get()
    layer_index = module.layer_idx
    if current is None:
        raise EngineError(f"attention {NAME} was called outside of a forward pass of the engine")
    if not isinstance(layer_index, int):
        raise TypeError(f"{type(module).__name__} has no integer layer_idx")
    current.layers += 1
    batch = current.batch
    cache = batch.kv_cache.layers[layer_index]
    slots, positions = batch.slots.to(key.device), batch.positions[: len(batch.slots)].to(key.device)
    unpadded = key.shape[2] - batch.padding
    cache.keys[slots, :, positions] = batch.to_cache(key[0, :, :unpadded].transpose(0, 1), layer_index)
    cache.values[slots, :, positions] = batch.to_cache(value[0, :, :unpadded].transpose(0, 1), layer_index)

    if batch.self_only and layer_index == len(batch.kv_cache.layers) - 1:
        return query.new_zeros(query.shape).transpose(1, 2), None
    options = ScoreOptions(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    parts = [
        _decode(query[0, :, group.start : group.end], cache, group, positions[group.start : group.end], options)
        for group in batch.decode_groups
    ]
    for segment in batch.segments_at(layer_index):
        length = segment.position + segment.end - segment.start
        part = _prefill(
            query[0, :, segment.start : segment.end],
            cache.keys[segment.slot, :, :length],
            cache.values[segment.slot, :, :length],
            segment.position,
            options,
        )
        parts.append(part)
    if batch.padding:
        parts.append(query.new_zeros(batch.padding, query.shape[1], query.shape[-1]))
    attended = batch.expand_attended(parts[0] if len(parts) == 1 else torch.cat(parts), layer_index)
    return attended.unsqueeze(0), None


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


AttentionInterface.register(NAME, ragged_attention)
