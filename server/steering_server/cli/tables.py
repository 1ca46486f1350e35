"""A report's tables on the terminal."""

from rich.markup import escape
from rich.table import Table as RichTable

from steering_profiles.reports.tables import Table


def on_terminal(table: Table) -> RichTable:
    """Return ``table`` as rich prints it, its texts as they are."""
    shown = RichTable(title=escape(table.caption), title_justify="left")
    for column in table.columns:
        shown.add_column(escape(column.heading), justify="right" if column.numeric else "left")
    for row in table.rows:
        shown.add_row(*(escape(f"{cell.text} {cell.note}".strip()) for cell in row))
    return shown
