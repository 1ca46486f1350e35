"""Text as it is shown: what cannot be seen is made visible, what is too long is cut."""

_SHOWN = {" ": "·", "\n": "↵", "\t": "→"}


def visible(token: str) -> str:
    """Return ``token`` with spaces, line ends and characters that cannot be seen written out: `` print`` is ``·print``.

    Control characters, direction marks and lone surrogates become escapes, as Python writes them.
    """
    return "".join(_SHOWN.get(char) or (char if char.isprintable() else _escaped(char)) for char in token)


def printable(text: str) -> str:
    """Return ``text`` with characters that cannot be seen written out, spaces, tabs and line ends excepted."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in text)


def one_line(text: str) -> str:
    """Return ``text`` on one line, with single spaces and nothing in it that cannot be seen."""
    return " ".join(printable(text).split())


def shortened(text: str, most: int) -> str:
    """Return ``text``, cut to ``most`` characters with an ellipsis at its end if it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def number(value: float) -> str:
    """Return ``value`` in as few digits as tell it, at most four after the point: ``1.5``, ``20``."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """Return a share of 1 in percent, to one decimal: ``97.3``."""
    return f"{100 * share:.1f}"


def signed_percent(share: float) -> str:
    """Return a change as a share of 1 in percent, with its sign: ``+0.62%``."""
    return f"{100 * share:+.2f}%".replace("-", "−")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
