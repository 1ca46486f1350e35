"""Correction for several tests."""

from collections.abc import Sequence

from steering_ab.errors import StatisticsError


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values adjusted by Holm's method (Holm 1979, Scand. J. Stat. 6:65), in the given order.

    Rejecting those at most 0.05 makes any false rejection at most 5% likely, whatever the dependence of the tests.

    Raises:
        StatisticsError: a p-value is not in 0..1.
    """
    from statsmodels.stats.multitest import multipletests

    for value in p_values:
        if not 0 <= value <= 1:
            raise StatisticsError(f"p-value is {value}; allowed: 0..1")
    if not p_values:
        return ()
    return tuple(float(value) for value in multipletests(list(p_values), method="holm")[1])
