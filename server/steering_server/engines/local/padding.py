"""Padding of small inputs of linear layers, to a number of tokens that the CPU's matrix kernels multiply in less time.

oneDNN's kernels for AVX-512 take some 15% longer for one or two tokens than for four; those for AVX2 do not.
"""

import time
from collections.abc import Sequence

import torch

from steering_server.engines.local.prepacking import PrepackedLinear

_QUICK = 4
"""Number of tokens that the vectors of AVX-512 kernels are filled by."""
_WORTHWHILE = 0.97
"""Share of the time of a single token that four may take at most."""
_ROUNDS = 5
_LEAST_BYTES = 16 * 2**20
"""Smaller weights stay in the processor's cache and take next to no time."""
_MOST_BYTES = 256 * 2**20
"""Weights that are read for a measurement: more than the cache holds, in less than a second."""

_measured: dict[object, int] = {}
"""Measurements of this process, so that two engines on the same model do the same."""


def quickest_padding(linears: Sequence[PrepackedLinear], dtype: torch.dtype) -> int:
    """Return the number of tokens to which smaller inputs of ``linears`` are padded to take less time, 1 for none."""
    sample, size = [], 0
    for linear in linears:
        if size < _MOST_BYTES:
            sample.append(linear)
            size += linear.shape[0] * linear.shape[1] * dtype.itemsize
    if size < _LEAST_BYTES:
        return 1
    key = (tuple(linear.shape for linear in sample), dtype, torch.get_num_threads())
    if key not in _measured:
        _seconds(sample, _QUICK, dtype)  # the kernels are prepared at their first use
        seconds = [[_seconds(sample, tokens, dtype) for tokens in (1, _QUICK)] for _ in range(_ROUNDS)]
        single, quick = map(min, zip(*seconds, strict=True))
        _measured[key] = _QUICK if quick < _WORTHWHILE * single else 1
    return _measured[key]


@torch.inference_mode()
def _seconds(linears: Sequence[PrepackedLinear], tokens: int, dtype: torch.dtype) -> float:
    """Return how long the products with ``tokens`` tokens take."""
    inputs = {width: torch.zeros(1, tokens, width, dtype=dtype) for width in {linear.shape[1] for linear in linears}}
    began = time.perf_counter()
    for linear in linears:
        linear(inputs[linear.shape[1]])
    return time.perf_counter() - began
