"""Plots of reports, which need matplotlib: checked before the hours of work that a report is of."""

from rich.console import Console

from steering_profiles.plotting import INSTALL, plots_available


def can_draw_plots(console: Console) -> bool:
    """Return whether the plots of a report can be drawn; print a warning if they cannot."""
    available = plots_available()
    if not available:
        warning = f"matplotlib is not installed, so the report will have no plots; install it with: {INSTALL}"
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    return available
