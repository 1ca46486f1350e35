"""Building blocks of a report page, which is rendered as HTML and as Markdown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steering_profiles.reports.tables import Table, Tone

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Paragraph:
    """A short paragraph of text."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Plot:
    """A plot. It is drawn only in HTML."""

    name: str
    """Identifier, unique on the page: letters and hyphens."""
    title: str
    """Title, which is also the alternative text."""
    caption: str
    """Explanation of how to read the plot."""
    draw: Callable[[], "Figure"]


@dataclass(frozen=True)
class Details:
    """A collapsed table or text that the reader can open."""

    summary: str
    content: Table | str


@dataclass(frozen=True)
class Piece:
    """A piece of a text, marked or not."""

    text: str
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """A text with a heading and a tone."""

    heading: str
    pieces: tuple[Piece, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class SideBySide:
    """Texts that are shown beside each other."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class CodeBlock:
    """Preformatted text, such as a command."""

    text: str


Block = Paragraph | Plot | Table | Details | CodeBlock | SideBySide


@dataclass(frozen=True)
class Section:
    """A section of a page: a heading, which may be empty, and its blocks."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A report page."""

    name: str
    """File name without its suffix."""
    window_title: str
    title: str
    about: str
    """Description of the subject in one sentence."""
    sections: tuple[Section, ...]
