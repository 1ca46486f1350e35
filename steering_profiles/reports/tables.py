"""Tables as data, which the HTML page, the Markdown file and the terminal show."""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "better", "worse"]


ALL = "all"
"""Heading of the figures pooled over all groups."""


MOST_COLUMNS = 6
"""Maximum number of groups that are shown as columns; more are shown as rows."""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a note, and a tone that marks it as better or worse."""

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """A column."""

    heading: str
    numeric: bool = True
    code: bool = False
    """Whether the cells are shown as code."""
    code_heading: bool = False
    """Whether the heading is shown as code."""


@dataclass(frozen=True)
class Table:
    """A table with its caption."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
