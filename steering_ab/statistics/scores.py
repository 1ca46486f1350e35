"""Two arms with a score each on the same items: bootstrap interval and permutation test of the mean difference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steering_ab.errors import StatisticsError
from steering_ab.statistics.intervals import CONFIDENCE, Interval, require_level

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 9999
_FEWEST_RESAMPLES = 1999
_MOST_DRAWS = 2 * 10**8  # resamples x items, about two seconds
_ROUNDING = 1e-12  # of a sum, per value
_DRAWS_AT_ONCE = 2 * 10**6  # 16 MB of float64


def bootstrap_interval(differences: Sequence[float], seed: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the BCa bootstrap interval of the mean of paired ``differences`` (Efron 1987, JASA 82:171).

    The same seed gives the same interval. Where all differences are the same, it has no width.

    Raises:
        StatisticsError: there is no difference, or one is not finite.
    """
    import numpy as np
    from scipy.stats import bootstrap

    require_level("confidence", confidence)
    values = _values(differences)
    # Equal values make the acceleration of BCa undefined; the rounding of their mean must not hide that.
    if len(values) < 2 or np.ptp(values) < 1e-12 * max(1.0, float(np.abs(values).max())):
        mean = float(values.mean())
        return Interval(mean, mean)
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=_resamples(len(values)),
        batch=max(1, _DRAWS_AT_ONCE // len(values)),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def permutation_test(differences: Sequence[float], seed: int) -> float:
    """Return the two-sided p-value of the sign-flip permutation test of the mean of paired ``differences``.

    The test is exact where there are fewer flips of the signs than resamples; else flips are drawn by ``seed``, and
    the observed one counts among them (Phipson & Smyth 2010, arXiv:1603.05766).

    Raises:
        StatisticsError: there is no difference, or one is not finite.
    """
    import numpy as np

    values = _values(differences)
    moved = values[values != 0]  # a flip changes no zero
    if not len(moved):
        return 1.0
    moved = moved / np.abs(moved).max()
    least = abs(moved.sum()) - _ROUNDING * len(moved)
    if 2 ** len(moved) <= RESAMPLES:
        numbers = np.arange(2 ** len(moved))[:, None]
        flips = (numbers >> np.arange(len(moved))) & 1
        return float((np.abs((1 - 2 * flips) @ moved) >= least).mean())
    generator = np.random.default_rng(seed)
    resamples, extreme = _resamples(len(moved)), 0
    for start in range(0, resamples, batch := max(1, _DRAWS_AT_ONCE // len(moved))):
        size = (min(batch, resamples - start), len(moved))
        flips = generator.integers(0, 2, size, dtype=np.int8)
        extreme += int((np.abs(moved.sum() - 2 * (flips @ moved)) >= least).sum())
    return (extreme + 1) / (resamples + 1)


def _values(differences: Sequence[float]) -> "NDArray[np.float64]":
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        raise StatisticsError("there are 0 differences; a comparison needs at least 1")
    if not np.isfinite(values).all():
        raise StatisticsError(f"difference {int(np.argmin(np.isfinite(values)))} is not a finite number")
    return values


def _resamples(items: int) -> int:
    return max(_FEWEST_RESAMPLES, min(RESAMPLES, _MOST_DRAWS // items))
