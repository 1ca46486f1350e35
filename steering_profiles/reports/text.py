"""Formatting of text and numbers for reports."""

from collections.abc import Sequence

NAMED = 5
"""Maximum number of items that a sentence names; the others are counted."""
_SHOWN = {" ": "·", "\n": "↵", "\t": "→"}


def visible(token: str) -> str:
    """Return ``token`` with visible spaces, line ends and unprintable characters: `` print`` becomes ``·print``.

    Control characters, direction marks and lone surrogates become Python escapes.
    """
    return "".join(_SHOWN.get(char) or (char if char.isprintable() else _escaped(char)) for char in token)


def printable(text: str) -> str:
    """Return ``text`` with unprintable characters escaped, except spaces, tabs and line ends."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in text)


def one_line(text: str) -> str:
    """Return ``text`` on one line, with single spaces and unprintable characters escaped."""
    return " ".join(printable(text).split())


def shortened(text: str, most: int) -> str:
    """Return ``text``, shortened to ``most`` characters with a final ellipsis if it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def number(value: float) -> str:
    """Return ``value`` with at most four decimals and without trailing zeros: ``1.5``, ``20``."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """Return a share of 1 as a percentage with one decimal: ``97.3``."""
    return f"{100 * share:.1f}"


def signed_percent(share: float) -> str:
    """Return a relative change as a signed percentage: ``+0.62%``."""
    return minus(f"{100 * share:+.2f}%")


def minus(text: str) -> str:
    """Return ``text``, which has numbers, with minus signs for hyphens."""
    return text.replace("-", "−")


def named(items: Sequence[str]) -> str:
    """Return the first ``NAMED`` of ``items`` in a row, and the number of the others."""
    more = len(items) - NAMED
    return "; ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
