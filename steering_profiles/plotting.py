"""Availability of matplotlib, which draws the plots of reports. It is an optional dependency, imported only to draw."""

from importlib.util import find_spec

from steering_profiles.errors import ReportError

INSTALL = "pip install 'steering-server[reports]'"
"""Command that installs matplotlib."""


def plots_available() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def require_plots() -> None:
    """Check that plots can be drawn.

    Raises:
        ReportError: matplotlib is not installed. The message names the command that installs it.
    """
    if not plots_available():
        raise ReportError(f"the plots of a report need matplotlib, which is not installed; install it with: {INSTALL}")
