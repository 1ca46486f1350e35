"""What a page is made of, whatever it reports on: written as HTML and as Markdown alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steering_profiles.reports.tables import Table, Tone

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Paragraph:
    """A sentence or two."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Plot:
    """A picture, its alternative text, and how to read it."""

    name: str
    """Tells the plots of one page apart: letters and hyphens."""
    title: str
    caption: str
    draw: Callable[[], "Figure"]


@dataclass(frozen=True)
class Details:
    """Something long that opens on demand: a table or verbatim text."""

    summary: str
    content: Table | str


@dataclass(frozen=True)
class CodeBlock:
    """Text shown as it is, such as a command."""

    text: str


Block = Paragraph | Plot | Table | Details | CodeBlock


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """One report, in words, tables and pictures."""

    name: str
    """What its files are called."""
    window_title: str
    title: str
    about: str
    """What it is of, in a sentence."""
    sections: tuple[Section, ...]
