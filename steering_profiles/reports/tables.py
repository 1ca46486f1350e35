"""Tables as data, which the HTML page, the Markdown file and the terminal show."""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "better", "worse"]


ALL = "all"
"""Heading of what is pooled over the groups."""


MOST_COLUMNS = 6
"""Groups that stand side by side; more of them go below each other."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what is added to it in words, and whether that is good."""

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """One column."""

    heading: str
    numeric: bool = True
    code: bool = False
    """Its cells are code or data, shown as they are."""
    code_heading: bool = False


@dataclass(frozen=True)
class Table:
    """A table and what it is of."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
