"""Intervals of what a profile changes in the prediction of a text, by a paired bootstrap of blocks of its tokens."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

BLOCK = 32
"""Consecutive tokens that are drawn together, since what a profile does to one token and to the next is related."""
_DRAWS = 2000
_LEAST_BLOCKS = 8

_Floats = npt.NDArray[np.float64]


def relative_change_interval(
    before: Sequence[_Floats], after: Sequence[_Floats], seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95% interval of ``sum(after) / sum(before) - 1``; None for fewer than eight blocks of tokens.

    Both have one array per window, with a value for each of its tokens: ``[windows][tokens]``. Blocks of tokens are
    drawn with replacement, the same ones without and with the change (paired); the interval is that of percentiles.
    """
    return _interval(before, after, lambda first, second: second / first - 1, seed)


def mean_interval(values: Sequence[_Floats], seed: int = 0) -> tuple[float, float] | None:
    """Return the 95% interval of the mean over all tokens, with blocks as in :func:`relative_change_interval`."""
    return _interval([np.ones_like(one) for one in values], values, lambda tokens, sums: sums / tokens, seed)


def _interval(
    first: Sequence[_Floats], second: Sequence[_Floats], statistic: Callable[[_Floats, _Floats], _Floats], seed: int
) -> tuple[float, float] | None:
    """Return the interval of a statistic of the sums of two values over the same tokens."""
    pairs = [
        (float(one[start : start + BLOCK].sum()), float(other[start : start + BLOCK].sum()))
        for one, other in zip(first, second, strict=True)
        for start in range(0, len(one), BLOCK)
    ]
    if len(pairs) < _LEAST_BLOCKS:
        return None
    blocks = np.array(pairs)
    drawn = np.random.default_rng(seed).integers(len(blocks), size=(_DRAWS, len(blocks)))
    sums = blocks[drawn].sum(axis=1)
    low, high = np.percentile(statistic(sums[:, 0], sums[:, 1]), [2.5, 97.5])
    return float(low), float(high)
