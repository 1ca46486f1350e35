"""The texts that ship with the package: one pair to measure with, and another pair that a fit may look at.

All of them were written for this project. The held-out pair is for reporting: nothing may be chosen by it, or its
figures would no longer say how a profile fares on text that it was not made for.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent / "texts"


def held_out_texts() -> dict[str, str]:
    """Return ``prose`` (six pieces of six kinds) and ``code`` (Python, some JavaScript and C)."""
    return _read("prose", "code", prefix="")


def fitting_texts() -> dict[str, str]:
    """Return texts of the same two kinds, shorter and with nothing in common with the held-out ones."""
    return _read("prose", "code", prefix="fitting_")


def _read(*names: str, prefix: str) -> dict[str, str]:
    return {name: (_FOLDER / f"{prefix}{name}.txt").read_text(encoding="utf-8") for name in names}
