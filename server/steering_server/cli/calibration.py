"""Calibration results on the terminal: the table and the sentences of the report."""

from collections.abc import Mapping
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


def show_tempered(console: Console, sets: "Mapping[str, CalibrationComparison]") -> None:
    """Print what the profile changes where both sides have a tuned temperature, by prompt set and sub-task."""
    from steering_profiles.reports.tempered import tempered_sentences, tempered_table

    if any(compared.both_tempered is not None for compared in sets.values()):
        console.print(on_terminal(tempered_table(sets)))
        for sentence, tone in tempered_sentences(sets):
            console.print(sentence, style="yellow" if tone == "worse" else None, markup=False, highlight=False)
