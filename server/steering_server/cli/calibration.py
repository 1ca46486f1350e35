"""Calibration results on the terminal: the table and the sentences of the report."""

from typing import TYPE_CHECKING

from rich.console import Console

from steering_server.cli.tables import on_terminal

if TYPE_CHECKING:
    from steering_profiles.evaluation import CalibrationComparison


def show_calibration(console: Console, name: str, compared: "CalibrationComparison") -> None:
    """Print the calibration of three arms on the prompts ``name``, and the verdict."""
    from steering_profiles.reports.calibration import calibration_table, verdict

    console.print(on_terminal(calibration_table(name, compared)))
    for sentence, tone in verdict(compared):
        console.print(sentence, style="yellow" if tone == "worse" else None, markup=False, highlight=False)
