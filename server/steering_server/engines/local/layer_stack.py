"""Layers of gated blocks by one call of the compiled kernels, which stops where steering changes something.

From Python every operation of a layer costs some microseconds, in which no weight is read: a fifth of a step with one
sequence.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from steering_profiles.models import Sizes
from steering_server.engines.local import kernels
from steering_server.engines.local.kernels import PackedWeight, ScoreOptions
from steering_server.engines.local.kv_cache import LayerKVCache
from steering_server.engines.local.prepacking import PrepackedLinear

_Address, _Number, _Real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


@dataclass(frozen=True)
class Norm:
    """An RMS norm."""

    gain: Tensor
    epsilon: float


@dataclass(frozen=True)
class GatedLayer:
    """Weights, norms and KV cache of one layer."""

    attention_norm: Norm
    qkv: PrepackedLinear
    query_norm: Norm | None
    key_norm: Norm | None
    scores: ScoreOptions
    output: PrepackedLinear
    mlp_norm: Norm
    gate_up: PrepackedLinear
    down: PrepackedLinear
    cache: LayerKVCache


class Stage(IntEnum):
    """Part of a layer."""

    ATTENTION = 0
    """From the residual stream to the heads' outputs, ``z``."""
    NEURONS = 1
    """From there to the neurons' activations."""
    OUTPUT = 2
    """From there to what the MLP adds to the residual stream."""


@dataclass(frozen=True)
class Placement:
    """Where the tokens of a step are: in their sequences, and in the KV cache."""

    cos: Tensor
    """``[at least so many tokens, rotary dimensions]``, contiguous."""
    sin: Tensor
    slots: Tensor
    """``[cached tokens]``"""
    positions: Tensor
    """``[at least so many cached tokens]``"""
    sources: Tensor | None
    """``[cached tokens]``: the tokens to write to the cache, if not the first ones in order."""
    segments: Tensor
    """``[segments, 4]``, as :func:`.kernels.attend` takes them."""
    silent_layer: int | None
    """The layer whose attention is zero, because steering replaces it for every token."""


class _Product(ctypes.Structure):
    _fields_ = (("weight", _Address), ("bias", _Address), ("width", _Number), ("columns", _Number))


_PRODUCTS = ("qkv", "output", "gate_up", "down")


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Product) for name in _PRODUCTS),
        *((name, _Address) for name in ("attention_gain", "mlp_gain", "query_gain", "key_gain")),
        *((name, _Address) for name in ("cached_keys", "cached_values")),
        ("window", _Number),
        *((name, _Real) for name in ("attention_epsilon", "mlp_epsilon", "head_epsilon", "scale")),
    )


_SCRATCH = ("normed", "qkv", "queries", "keys", "z", "attention_output", "gate_up", "activations", "mlp_output")
"""What the operations of a layer hand on to each other, ``[tokens, ...]``; the next layer overwrites it."""


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, _Number) for name in ("is_bfloat16", "threads", "tokens")),
        *((name, _Number) for name in ("hidden_size", "heads", "kv_heads", "head_dim", "neurons", "rotary_dim")),
        *((name, _Number) for name in ("cache_slot", "cache_head", "cache_length")),
        *((name, _Address) for name in ("cos", "sin", "slots", "positions", "sources", "segments")),
        *((name, _Number) for name in ("cached", "segment_count", "silent_layer")),
        ("stream", _Address),
        *((name, _Address) for name in _SCRATCH),
        ("is_pending", _Number),
    )


def can_be_stacked(layers: Sequence[GatedLayer]) -> bool:
    """Whether the compiled kernels have all products of ``layers``."""
    return all(
        isinstance(weight := getattr(layer, name).weight, PackedWeight) and weight.takes_any_input
        for layer in layers
        for name in _PRODUCTS
    )


class LayerStack:
    """The layers of one model, which :func:`can_be_stacked`."""

    def __init__(self, layers: Sequence[GatedLayer], sizes: Sizes, dtype: torch.dtype) -> None:
        self._layers = layers  # the structs have the addresses of their tensors
        self._structs = (_Layer * len(layers))(*map(_layer, layers))
        self._sizes = sizes
        self._dtype = dtype
        queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
        hidden, neurons = sizes.hidden_size, sizes.neurons
        widths = (hidden, queries + 2 * keys, queries, keys, queries, hidden, 2 * neurons, neurons, hidden)
        self._widths = dict(zip(_SCRATCH, widths, strict=True))
        self._memory = torch.empty(0, dtype=dtype)

    def begin(self, stream: Tensor, placement: Placement, layer: int) -> "StackStep":
        """Return a step from ``layer`` on, whose input is ``stream``, ``[1, tokens, hidden_size]``: it is overwritten.

        The step ends with the next call of this method.
        """
        tokens, sizes, keys = stream.shape[1], self._sizes, self._layers[0].cache.keys
        needed = tokens * sum(self._widths.values())
        if len(self._memory) < needed:
            self._memory = torch.empty(needed, dtype=self._dtype)
        pieces = self._memory[:needed].split([tokens * width for width in self._widths.values()])
        scratch = {name: piece.view(1, tokens, -1) for name, piece in zip(_SCRATCH, pieces, strict=True)}
        struct = _Step(
            is_bfloat16=self._dtype == torch.bfloat16,
            threads=torch.get_num_threads(),
            tokens=tokens,
            hidden_size=sizes.hidden_size,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            neurons=sizes.neurons,
            rotary_dim=placement.cos.shape[-1],
            cache_slot=keys.stride(0),
            cache_head=keys.stride(1),
            cache_length=keys.shape[2],
            cos=placement.cos.data_ptr(),
            sin=placement.sin.data_ptr(),
            slots=placement.slots.data_ptr(),
            positions=placement.positions.data_ptr(),
            sources=_address(placement.sources),
            segments=placement.segments.data_ptr(),
            cached=len(placement.slots),
            segment_count=len(placement.segments),
            silent_layer=-1 if placement.silent_layer is None else placement.silent_layer,
            stream=stream.data_ptr(),
            **{name: piece.data_ptr() for name, piece in scratch.items()},
        )
        return StackStep(self._structs, struct, stream, placement, scratch, layer)


class StackStep:
    """Computes a stack's layers for the tokens of one step, stage by stage."""

    def __init__(
        self,
        layers: ctypes.Array[_Layer],
        struct: _Step,
        stream: Tensor,
        placement: Placement,
        scratch: dict[str, Tensor],
        layer: int,
    ) -> None:
        self._layers = layers
        self._struct = struct
        self._placement = placement  # the struct has the addresses of its tensors
        self.stream = stream
        """The residual stream without :attr:`mlp_output`, ``[1, tokens, hidden_size]``."""
        self.z = scratch["z"]
        """The heads' outputs, ``[1, tokens, heads * head_dim]``, before :attr:`Stage.NEURONS`."""
        self.own_values = scratch["qkv"][..., -scratch["keys"].shape[-1] :]
        """The tokens' value vectors, ``[1, tokens, kv_heads * head_dim]``, then too."""
        self.activations = scratch["activations"]
        """The neurons' activations, ``[1, tokens, neurons]``, before :attr:`Stage.OUTPUT`."""
        self.mlp_output = scratch["mlp_output"]
        """What the last layer's MLP adds to the stream, ``[1, tokens, hidden_size]``."""
        self._done = len(Stage) * layer

    def advance(self, layer: int, before: Stage) -> None:
        """Compute everything before a stage of ``layer``."""
        end = len(Stage) * layer + before
        kernels.compute_layers(ctypes.addressof(self._layers), ctypes.addressof(self._struct), self._done, end)
        self._done = end


def _layer(layer: GatedLayer) -> _Layer:
    query_norm, key_norm = layer.query_norm, layer.key_norm
    return _Layer(
        **{name: _product(getattr(layer, name)) for name in _PRODUCTS},
        attention_gain=layer.attention_norm.gain.data_ptr(),
        mlp_gain=layer.mlp_norm.gain.data_ptr(),
        query_gain=None if query_norm is None else query_norm.gain.data_ptr(),
        key_gain=None if key_norm is None else key_norm.gain.data_ptr(),
        cached_keys=layer.cache.keys.data_ptr(),
        cached_values=layer.cache.values.data_ptr(),
        window=layer.scores.window or 0,
        attention_epsilon=layer.attention_norm.epsilon,
        mlp_epsilon=layer.mlp_norm.epsilon,
        head_epsilon=0.0 if query_norm is None else query_norm.epsilon,
        scale=layer.scores.scale,
    )


def _product(linear: PrepackedLinear) -> _Product:
    weight = linear.weight
    if not isinstance(weight, PackedWeight):
        raise TypeError("the compiled kernels multiply by weights in their own order only")
    return _Product(weight.address, _address(linear.bias), weight.in_features, weight.out_features)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
