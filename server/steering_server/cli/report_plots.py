"""Check for matplotlib, which the plots of reports need, before the work that a report describes."""

from rich.console import Console

from steering_profiles.plotting import INSTALL, plots_available


def can_draw_plots(console: Console) -> bool:
    """Return whether the plots of a report can be drawn; print a warning if they cannot."""
    available = plots_available()
    if not available:
        warning = f"matplotlib is not installed, so the report will have no plots; install it with: {INSTALL}"
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    return available
