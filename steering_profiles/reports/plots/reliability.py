"""Reliability diagrams."""

import math

from matplotlib.figure import Figure

from steering_profiles.evaluation.calibration import Calibration, CalibrationComparison
from steering_profiles.reports.plots.style import BLUE, MUTED, ORANGE, RULE, WIDTH

_SMALLEST, _LARGEST = 3.0, 12.0


def reliability_plot(compared: CalibrationComparison) -> Figure:
    """Draw accuracy over confidence for each arm; empty bins are left out."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    arms = (
        ("baseline", compared.baseline.all_prompts.pooled, BLUE),
        ("profile", compared.profile.all_prompts.pooled, ORANGE),
        (f"temperature {compared.temperature:.2f}", compared.tempered.all_prompts.pooled, MUTED),
    )
    for axes, (name, calibration, colour) in zip(panels, arms, strict=True):
        axes.plot((0, 1), (0, 1), color=RULE, linewidth=1, linestyle="--")
        some = [one for one in calibration.bins if one.count]
        axes.plot([one.confidence for one in some], [one.accuracy for one in some], color=colour, linewidth=1.2)
        for one in some:
            axes.plot(one.confidence, one.accuracy, "o", color=colour, markersize=_size(one.count, calibration))
        axes.set_title(f"{name}: error {100 * calibration.error:.1f}%, NLL {calibration.nll:.3f}")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence")
        axes.grid(color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("accuracy")
    return figure


def _size(count: int, of: Calibration) -> float:
    """Return the diameter of a dot whose area is proportional to ``count``."""
    return max(_SMALLEST, _LARGEST * math.sqrt(count / of.total))
