"""Tables of a report on the terminal."""

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from steering_profiles.reports.tables import Cell, Table


def on_terminal(table: "Table") -> RichTable:
    """Return ``table`` as a rich table. Its texts are not read as rich's markup."""
    shown = RichTable(title=escape(table.caption), title_justify="left")
    for column in table.columns:
        shown.add_column(escape(column.heading), justify="right" if column.numeric else "left")
    for row in table.rows:
        shown.add_row(*map(_text, row))
    return shown


def _text(cell: "Cell") -> str:
    return escape(cell.text) + (f" [dim]{escape(cell.note)}[/]" if cell.note else "")
