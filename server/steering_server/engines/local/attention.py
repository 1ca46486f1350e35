"""Attention over a ragged batch: sequences concatenated in one ``[1, tokens]`` input, each with its own KV cache.

It is registered with transformers as an attention implementation, so that the model itself is the stock one.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from steering_profiles.models import Anatomy
from steering_server.engines.local import kernels, torch_attention
from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.ragged import RaggedBatch
from steering_server.errors import EngineError

NAME = "steering_ragged"


Attend = Callable[[Tensor, Tensor, Tensor, int, ScoreOptions], Tensor]
"""Attends in one layer: query ``[tokens, heads, head_dim]``, key and value ``[tokens, kv_heads, head_dim]``, the layer
and the options of its scores; returns the shape of the query."""


@dataclass
class _ForwardPass:
    attend: Attend
    dtype: torch.dtype
    batch: RaggedBatch | None
    layers: int = 0
    """Number of layers that have computed attention so far."""


_current_pass: ContextVar[_ForwardPass | None] = ContextVar("current_pass", default=None)


def refusal(model: PreTrainedModel, anatomy: Anatomy) -> str | None:
    """Return the reason why the engine cannot run ``model``, or None if it can."""
    if type(model)._can_set_attn_implementation() or anatomy.family.attention_forward is not None:
        return None
    return (
        f"{type(model).__name__} computes attention by itself, not through transformers' attention interface, so the "
        "engine cannot give each sequence its own KV cache; fitting, evaluating and exporting work"
    )


def forward_context(batch: RaggedBatch, layers: int) -> AbstractContextManager[None]:
    """Make the forward pass inside this context, of a model with ``layers`` layers, attend as ``batch`` describes.

    Raises:
        EngineError: some layer did not use this attention implementation.
    """

    def attend_in_batch(query: Tensor, key: Tensor, value: Tensor, layer: int, options: ScoreOptions) -> Tensor:
        return attend(query, key, value, batch, layer, options)

    return attending(attend_in_batch, layers, batch.kv_cache.dtype, batch)


@contextmanager
def attending(attend: Attend, layers: int, dtype: torch.dtype, batch: RaggedBatch | None = None) -> Iterator[None]:
    """Make the forward pass inside this context, of a model with ``layers`` layers, attend by ``attend``.

    It is given queries, keys and values of ``dtype``, that of the KV cache.

    Raises:
        EngineError: some layer did not use this attention implementation.
    """
    current = _ForwardPass(attend, dtype, batch)
    token = _current_pass.set(current)
    try:
        yield
    finally:
        _current_pass.reset(token)
    if current.layers != layers:
        raise EngineError(f"{current.layers} of {layers} layers attended to the sequences of their batch")


def current_batch() -> RaggedBatch | None:
    """Return the ragged batch that this thread computes, or None outside of such a forward pass."""
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
    sliding window if there is one.
    """
    current = _current_pass.get()
    layer_index = module.layer_idx
    if current is None:
        raise EngineError(f"attention {NAME} was called outside of a forward pass of the engine")
    if not isinstance(layer_index, int):
        raise TypeError(f"{type(module).__name__} has no integer layer_idx")
    current.layers += 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Some models compute queries and keys more precisely than the rest.
    attended = current.attend(
        _by_token(query, current.dtype),
        _by_token(key, current.dtype),
        _by_token(value, current.dtype),
        layer_index,
        ScoreOptions(scale, sliding_window, softcap),
    )
    return attended.to(value.dtype).unsqueeze(0), None


def attend(query: Tensor, key: Tensor, value: Tensor, batch: RaggedBatch, layer: int, options: ScoreOptions) -> Tensor:
    """Write a layer's keys and values to the KV cache and attend each segment to its own sequence.

    ``query`` is ``[tokens, heads, head_dim]``, ``key`` and ``value`` ``[tokens, kv_heads, head_dim]``; returns
    ``[tokens, heads, head_dim]``. In the last layer, where self-only attention replaces the whole result for every
    token, no scores are computed and zeros are returned.
    """
    cache = batch.kv_cache.layers[layer]
    compiled = batch.kv_cache.kernels_refused is None
    if compiled:
        kernels.write_cache(
            key, value, cache.keys, cache.values, batch.slots, batch.positions, batch.cache_sources(layer)
        )
    else:
        slots, positions = batch.slots.to(key.device), batch.positions[: len(batch.slots)].to(key.device)
        cache.keys[slots, :, positions] = batch.to_cache(key, layer)
        cache.values[slots, :, positions] = batch.to_cache(value, layer)
    if batch.self_only and layer == len(batch.kv_cache.layers) - 1:
        return query.new_zeros(query.shape)
    if compiled:
        return kernels.attend(query, cache.keys, cache.values, batch.segments_of(len(query)), options)
    return torch_attention.attend(query.transpose(0, 1), cache, batch, layer, options)


def _by_token(projected: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn ``[1, heads, tokens, head_dim]`` into ``[tokens, heads, head_dim]`` of ``dtype``."""
    by_token = projected[0].transpose(0, 1).to(dtype)
    return by_token if by_token.stride(-1) == 1 else by_token.contiguous()


AttentionInterface.register(NAME, ragged_attention)
