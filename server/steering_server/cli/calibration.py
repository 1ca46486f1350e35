"""Calibration on the terminal: the tables and sentences of the report."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from steering_profiles.evaluation import CalibrationComparison
    from steering_profiles.reports.tables import Cell
    from steering_profiles.reports.tables import Table as ReportTable


def show_calibration(console: Console, name: str, compared: "CalibrationComparison") -> None:
    """Print how sure and how right three arms are on the prompts ``name``, and what to think of it."""
    from steering_profiles.reports.calibration import calibration_table, verdict

    console.print(as_rich(calibration_table(name, compared)))
    for sentence, tone in verdict(compared):
        console.print(sentence, style="yellow" if tone == "worse" else None, markup=False, highlight=False)


def as_rich(table: "ReportTable") -> Table:
    """Return a table of a report as one for the terminal."""
    made = Table(title=escape(table.caption))
    for column in table.columns:
        made.add_column(escape(column.heading), justify="right" if column.numeric else "left")
    for row in table.rows:
        made.add_row(*map(_text, row))
    return made


def _text(cell: "Cell") -> str:
    return escape(cell.text) + (f" [dim]{escape(cell.note)}[/]" if cell.note else "")
