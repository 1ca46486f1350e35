"""Numbers of a report as text."""

from steering_ab.statistics.intervals import Interval


def grade(value: float, *, rate: bool) -> str:
    """Return a mean grade: a rate in percent with one decimal, a score with up to three digits after the point."""
    return f"{100 * value:.1f}%" if rate else _score(value)


def change(value: float, *, rate: bool) -> str:
    """Return a difference with its sign: of rates in percentage points, of scores as it is."""
    text = f"{100 * value:+.1f}" if rate else _score(value, "+")
    return text.replace("-", "−")


def interval(ends: Interval, *, rate: bool, signed: bool = False) -> str:
    """Return an interval as ``low to high``."""
    if signed:
        return f"{change(ends.low, rate=rate)} to {change(ends.high, rate=rate)}"
    return f"{grade(ends.low, rate=rate)} to {grade(ends.high, rate=rate)}"


def p_value(value: float) -> str:
    """Return a p-value."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """Return a time; a dash where it is not known."""
    return "–" if value is None else f"{value:.3f} s" if value < 10 else f"{value:.1f} s"


def mean(value: float | None) -> str:
    """Return a mean; a dash where there is none."""
    return "–" if value is None else f"{value:.1f}"


def _score(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if abs(value) < 100 else f"{value:{sign},.1f}"
