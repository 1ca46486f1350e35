"""Plot of the steps of a stepwise search."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from steering_profiles.reports.plots.style import BLUE, ORANGE, RULE, WIDTH
from steering_profiles.reports.report import ReportedStep

_MOST_NUMBERED = 24


def path_plot(path: Sequence[ReportedStep]) -> Figure:
    """Draw validation errors and NLL increase over total change, a line for each round. Chosen steps are ringed."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    errors, nll_increase = figure.subplots(2, 1, sharex=True)
    total_change = [point.total_change for point in path]
    shares = [100 * point.errors / point.total if point.total else float("nan") for point in path]
    increases = [100 * point.nll_increase for point in path]
    for axes, values in ((errors, shares), (nll_increase, increases)):
        for of_round in dict.fromkeys(point.round for point in path):
            places = [place for place, point in enumerate(path) if point.round == of_round]
            line = [total_change[place] for place in places], [values[place] for place in places]
            axes.plot(*line, color=BLUE, marker="o", markersize=3.5, linewidth=1.2)
        axes.grid(color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        for x, y, point in zip(total_change, values, path, strict=True):
            if point.chosen:
                axes.plot(x, y, "o", color=ORANGE, fillstyle="none", markersize=9, markeredgewidth=1.8)
    if len(path) <= _MOST_NUMBERED:
        for x, y, point in zip(total_change, shares, path, strict=True):
            errors.annotate(
                str(point.components), (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=6.5
            )
        errors.set_title("labels: number of scaled components", loc="right")
    errors.set_ylabel("validation errors, %")
    errors.set_ylim(bottom=-0.06 * max(errors.get_ylim()))  # space for the dots at 0
    nll_increase.set_ylabel("NLL increase\nof neutral text, %")
    nll_increase.set_xlabel("total change (L1): sum of |scale − 1|")
    return figure
