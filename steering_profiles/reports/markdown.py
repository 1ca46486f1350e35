"""Rendering of a report page as GitHub-flavoured Markdown, without plots."""

import re
from collections.abc import Iterator
from html import escape

from steering_profiles.reports.blocks import Block, CodeBlock, Details, Page, Panel, Paragraph, Plot, SideBySide
from steering_profiles.reports.tables import Cell, Column, Table
from steering_profiles.reports.text import one_line, printable

_SPECIAL = re.compile(r"([\\`*_\[\]|~>$])")
_AT_START = re.compile(r"^(\d*)([#+\-.)]+)(?=\s|$)")  # starts a heading, a list or a rule
_NEEDS_ENTITY = re.compile(r"[`|\\]")


def markdown_of(page: Page) -> str:
    """Return ``page`` as Markdown. All text is escaped, so that no cell breaks its table."""
    parts = [f"# {plain(page.title)}", plain(page.about)]
    for section in page.sections:
        if section.title:
            parts.append(f"## {section.title}")
        for block in section.blocks:
            parts += _lines_of(block)
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Return ``text`` on one line, with the special characters of Markdown and HTML escaped."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return _AT_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", text))


def code_span(text: str) -> str:
    """Return ``text`` as a code span that is also valid in a table cell."""
    text = printable(text).replace("\n", "↵").replace("\t", "→")
    if not text:
        return ""
    inner = text.strip(" ")  # Markdown strips these spaces
    before = len(text) - len(text.lstrip(" "))
    text = "·" * before + inner + "·" * (len(text) - before - len(inner))
    if not _NEEDS_ENTITY.search(text):
        return f"`{text}`"
    # In a table, backticks cannot contain a backslash before a bar; entities can.
    return "<code>" + "".join(char if char.isalnum() or char == " " else f"&#{ord(char)};" for char in text) + "</code>"


def code_block(text: str) -> str:
    """Return ``text`` as a fenced code block. The fence is longer than any run of backticks in it."""
    text = printable(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _lines_of(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            yield f"**{plain(block.text)}**" if block.tone else plain(block.text)
        case Table():
            yield _table(block)
        case CodeBlock():
            yield code_block(block.text)
        case Details():
            yield f"<details><summary>{escape(one_line(block.summary))}</summary>"
            yield _table(block.content) if isinstance(block.content, Table) else code_block(block.content)
            yield "</details>"
        case SideBySide():
            yield plain(block.title)
            yield from map(_panel, block.panels)
        case Plot():
            return


def _panel(panel: Panel) -> str:
    """Return a text in HTML, since a code block cannot mark its parts."""
    pieces = [
        f"<mark>{_preformatted(piece.text)}</mark>" if piece.marked else _preformatted(piece.text)
        for piece in panel.pieces
    ]
    return f"<p><b>{escape(one_line(panel.heading))}</b></p>\n\n<pre>{''.join(pieces)}</pre>"


def _preformatted(text: str) -> str:
    return escape(printable(text)).replace("\n", "&#10;")  # a blank line may end HTML inside of Markdown


def _table(table: Table) -> str:
    lines = [
        [code_span(column.heading) if column.code_heading else plain(column.heading) for column in table.columns],
        ["---:" if column.numeric else "---" for column in table.columns],
        *([_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows),
    ]
    return f"{plain(table.caption)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell, column: Column) -> str:
    text = code_span(cell.text) if column.code else plain(cell.text)
    return f"{text} {plain(cell.note)}".strip()
