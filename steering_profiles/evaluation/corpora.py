"""The texts that ship with the package: a held-out pair for reports, and a pair that a fit may use.

All of them were written for this project; some of the code is a copy of its own modules as they once were. Nothing may
be chosen on the held-out texts: a report measures side effects on them.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent / "texts"


def held_out_texts() -> dict[str, str]:
    """Return the held-out texts: ``prose`` (sixteen of many kinds) and ``code`` (Python, JavaScript and C)."""
    return _read("prose", "code", prefix="")


def fitting_texts() -> dict[str, str]:
    """Return the texts that a fit may use: ``prose`` and ``code``, shorter than the held-out ones and unlike them."""
    return _read("prose", "code", prefix="fitting_")


def _read(*names: str, prefix: str) -> dict[str, str]:
    return {name: (_FOLDER / f"{prefix}{name}.txt").read_text(encoding="utf-8") for name in names}
