"""Compiled kernels for CPUs, batch invariant: a sequence's result does not depend on what is computed beside it.

PyTorch's own kernels are chosen, and their sums ordered, by the number of rows. These compute every row in one fixed
order, with sums in float32. They are built with the package where there is a C compiler; :data:`UNAVAILABLE` says why
they are not there.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from steering_server.engines.local.huge_pages import HugePages


def _openmp() -> int:
    """Return the address of GOMP_parallel in the OpenMP library that PyTorch has loaded; 0 if it uses another."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        return ctypes.cast(ctypes.CDLL(str(library)).GOMP_parallel, ctypes.c_void_p).value or 0
    return 0


OPENMP = _openmp()
"""Address of the function that runs a loop on PyTorch's threads."""
INSTRUCTIONS: str
"""The set of the processor's instructions that the kernels are compiled for: "plain" is what every processor has."""
UNAVAILABLE: str | None
"""Why there are no kernels; None where there are."""
try:
    from steering_server.engines.local.kernels import _native

    INSTRUCTIONS = _native.configure(OPENMP, "")  # the best there are
    UNAVAILABLE = None
except ImportError:
    INSTRUCTIONS = ""
    UNAVAILABLE = "the package was built without its compiled kernels (install a C compiler and install it again)"


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


def refusal(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int) -> str | None:
    """Return why the kernels cannot compute a model of this kind; None if they can."""
    if UNAVAILABLE is not None:
        return UNAVAILABLE
    if device.type != "cpu":
        return f"the compiled kernels are for CPUs, and the model is on {device.type}"
    if dtype not in (torch.bfloat16, torch.float32):
        return f"the compiled kernels compute in bfloat16 and float32, not in {str(dtype).removeprefix('torch.')}"
    if head_dim > _native.MAX_HEAD_DIM or heads // kv_heads > _native.MAX_GROUP:
        return f"heads of {head_dim} dimensions in groups of {heads // kv_heads} are too large for the compiled kernels"
    return None


def write_cache(
    key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor, positions: Tensor, sources: Tensor | None
) -> None:
    """Write keys and values to their slots and positions in the cache.

    ``key`` and ``value`` are ``[tokens, kv_heads, head_dim]``, ``keys`` and ``values`` ``[slots, kv_heads, length,
    head_dim]``, ``slots`` and ``positions`` ``[cached tokens]``. ``sources`` are the tokens to write there, if not
    the first ones in order.
    """
    _native.cache(
        _is_bfloat16(key),
        torch.get_num_threads(),
        key.data_ptr(),
        key.stride(0),
        key.stride(1),
        value.data_ptr(),
        value.stride(0),
        value.stride(1),
        keys.data_ptr(),
        values.data_ptr(),
        keys.stride(0),
        keys.stride(1),
        slots.data_ptr(),
        positions.data_ptr(),
        0 if sources is None else sources.data_ptr(),
        slots.shape[0],
        key.shape[1],
        key.shape[2],
    )


def attend(query: Tensor, keys: Tensor, values: Tensor, segments: Tensor, options: ScoreOptions) -> Tensor:
    """Attend each segment's tokens to its own slot, up to their own position.

    ``query`` is ``[tokens, heads, head_dim]``, ``segments`` ``[segments, 4]``: first token, end, slot and the first
    token's position. Returns ``[tokens, heads, head_dim]``; tokens in no segment get zeros.
    """
    tokens, heads, head_dim = query.shape
    attended = query.new_zeros(tokens, heads, head_dim)
    _native.attend(
        _is_bfloat16(query),
        torch.get_num_threads(),
        query.data_ptr(),
        query.stride(0),
        query.stride(1),
        keys.data_ptr(),
        values.data_ptr(),
        keys.stride(0),
        keys.stride(1),
        keys.shape[2],
        segments.data_ptr(),
        segments.shape[0],
        attended.data_ptr(),
        heads,
        keys.shape[1],
        head_dim,
        options.window or 0,
        options.scale,
        options.softcap or 0.0,
    )
    return attended


def add_norm(stream: Tensor, added: Tensor | None, gain: Tensor | None, epsilon: float) -> Tensor:
    """Add ``added`` to the residual stream in place; return its RMS norm, or the stream itself where there is no gain.

    ``stream`` and ``added`` are contiguous, ``[..., hidden_size]``; rounding is that of transformers' RMS norms.
    """
    out = stream if gain is None else torch.empty_like(stream)
    width = stream.shape[-1]
    _native.add_norm(
        _is_bfloat16(stream),
        torch.get_num_threads(),
        stream.data_ptr(),
        0 if added is None else added.data_ptr(),
        0 if gain is None else gain.data_ptr(),
        out.data_ptr(),
        stream.numel() // width,
        width,
        epsilon,
    )
    return out


def gated_silu(gate_up: Tensor) -> Tensor:
    """Return ``silu(gate) * up`` of ``[..., gate | up]``, contiguous."""
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty(*gate_up.shape[:-1], width)
    rows = gate_up.numel() // (2 * width)
    _native.gate(_is_bfloat16(gate_up), torch.get_num_threads(), gate_up.data_ptr(), out.data_ptr(), rows, width)
    return out


def rotate(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    *,
    query_gain: Tensor | None = None,
    key_gain: Tensor | None = None,
    epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of a fused projection, rotary embeddings (and norms per head) applied.

    ``qkv`` is ``[..., tokens, (heads + 2 kv_heads) * head_dim]``, ``cos`` and ``sin`` ``[tokens or more, rotary
    dimensions]``; all contiguous. Returns ``[tokens, heads or kv_heads, head_dim]``; values are a view of ``qkv``.
    """
    width = qkv.shape[-1]
    tokens = qkv.numel() // width
    head_dim = width // (heads + 2 * kv_heads)
    queries, keys = qkv.new_empty(tokens, heads, head_dim), qkv.new_empty(tokens, kv_heads, head_dim)
    _native.rotary(
        _is_bfloat16(qkv),
        torch.get_num_threads(),
        qkv.data_ptr(),
        width,
        cos.data_ptr(),
        sin.data_ptr(),
        0 if query_gain is None else query_gain.data_ptr(),
        0 if key_gain is None else key_gain.data_ptr(),
        queries.data_ptr(),
        keys.data_ptr(),
        tokens,
        heads,
        kv_heads,
        head_dim,
        cos.shape[-1],
        epsilon,
    )
    values = qkv.as_strided(
        (tokens, kv_heads, head_dim), (width, head_dim, 1), qkv.storage_offset() + (heads + kv_heads) * head_dim
    )
    return queries, keys, values


class PackedWeight:
    """The weight of a linear layer in the order in which the kernel reads it, one panel of columns after the other."""

    def __init__(self, weight: Tensor, memory: HugePages) -> None:
        """Copy ``weight``, ``[out_features, in_features]``, to ``memory``."""
        self.out_features, self.in_features = weight.shape
        columns, self._paired = _native.panel(_is_bfloat16(weight))
        filled = pad(weight, (0, -self.in_features % self._paired, 0, -self.out_features % columns))
        by_panel = filled.view(-1, columns, filled.shape[1] // self._paired, self._paired)
        self._panels = memory.copy(by_panel.transpose(1, 2))

    @property
    def address(self) -> int:
        """Where the weight is in memory."""
        return self._panels.data_ptr()

    @property
    def takes_any_input(self) -> bool:
        """Whether an input can be multiplied as it is; else the kernel reads one element past each row."""
        return self.in_features % self._paired == 0

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``[..., out_features]`` of ``[..., in_features]``, with ``bias`` (``[out_features]``) added.

        Raises:
            ValueError: ``x`` has another width or type than the weight; the kernel would read what is not there.
        """
        if x.shape[-1] != self.in_features or x.dtype != self._panels.dtype:
            raise ValueError(
                f"the input is {_kind(x.shape[-1], x.dtype)}; {_kind(self.in_features, self._panels.dtype)} fits"
            )
        out = x.new_empty(*x.shape[:-1], self.out_features)
        x = x.contiguous() if self.takes_any_input else pad(x, (0, 1))
        width = x.shape[-1]
        _native.linear(
            _is_bfloat16(x),
            torch.get_num_threads(),
            x.data_ptr(),
            self.address,
            0 if bias is None else bias.data_ptr(),
            out.data_ptr(),
            x.numel() // width,
            width,
            self.out_features,
        )
        return out

    def unpacked(self) -> Tensor:
        """Return the weight as it was, ``[out_features, in_features]``."""
        panels, units, columns, paired = self._panels.shape
        weight = self._panels.transpose(1, 2).reshape(panels * columns, units * paired)
        return weight[: self.out_features, : self.in_features].contiguous()


def _kind(width: int, dtype: torch.dtype) -> str:
    return f"[..., {width}] in {str(dtype).removeprefix('torch.')}"


def can_multiply(dtype: torch.dtype) -> bool:
    """Whether :class:`PackedWeight` is faster than PyTorch's products here, which was measured from AVX2 on."""
    by_threads = OPENMP != 0 or torch.get_num_threads() == 1
    return UNAVAILABLE is None and INSTRUCTIONS != "plain" and by_threads and dtype in (torch.bfloat16, torch.float32)


def compute_layers(layers: int, step: int, first: int, end: int) -> None:
    """Compute the stages ``first..end`` of a model's layers, described by structs at these two addresses.

    It is :class:`.LayerStack` that makes them.

    Raises:
        MemoryError: there is not enough memory.
    """
    _native.layers(layers, step, first, end)


def unembed(hidden: Tensor, weight: Tensor) -> Tensor:
    """Return logits in float32: ``hidden`` ``[rows, hidden_size]`` times ``weight`` ``[vocab, hidden_size]``."""
    hidden = hidden.contiguous()
    rows, width = hidden.shape
    logits = torch.empty(rows, weight.shape[0])
    _native.logits(
        _is_bfloat16(hidden),
        torch.get_num_threads(),
        hidden.data_ptr(),
        weight.data_ptr(),
        logits.data_ptr(),
        rows,
        width,
        weight.shape[0],
    )
    return logits


@dataclass(frozen=True)
class LogitSummary:
    """Largest logit and likeliest token of each row of ``[rows, vocab]``; both fields are ``[rows]``."""

    largest: Tensor
    """A NaN counts as the largest."""
    likeliest: Tensor
    """The token with the largest logit, the lowest id among equals."""


def summarise(logits: Tensor) -> LogitSummary:
    """Return the largest logit of each row and its token."""
    logits = logits.contiguous()
    rows, vocabulary = logits.shape
    largest, likeliest = torch.empty(rows), torch.empty(rows, dtype=torch.long)
    _native.summary(
        torch.get_num_threads(), logits.data_ptr(), rows, vocabulary, largest.data_ptr(), 0, likeliest.data_ptr()
    )
    return LogitSummary(largest, likeliest)


def logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probabilities of ``tokens``, ``[rows, n]``, by ``logits``, ``[rows, vocab]`` in float32."""
    logits = logits.contiguous()
    rows, vocabulary = logits.shape
    largest, likeliest, log_total = torch.empty(rows), torch.empty(rows, dtype=torch.long), torch.empty(rows)
    _native.summary(
        torch.get_num_threads(),
        logits.data_ptr(),
        rows,
        vocabulary,
        largest.data_ptr(),
        log_total.data_ptr(),
        likeliest.data_ptr(),
    )
    return (logits.gather(-1, tokens) - largest.unsqueeze(-1)) - log_total.unsqueeze(-1)


def _is_bfloat16(tensor: Tensor) -> int:
    return int(tensor.dtype == torch.bfloat16)
