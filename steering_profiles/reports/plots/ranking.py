"""Plots of the ranking of components."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from steering_profiles.reports.plots.style import BLUE, INK, LEVELS, ORANGE, RULE, WEIGHTS, WIDTH, bare
from steering_profiles.reports.report import ReportedRanking
from steering_profiles.reports.text import one_line, shortened

_BINS = np.linspace(0, 1, 21)
_MOST_HISTOGRAMS = 9
_MOST_ROWS = 40
_MOST_DOTS = 1500
"""Maximum number of dots drawn as vectors. More are rasterised, since they would add megabytes to the page."""


def accuracy_histograms(ranking: ReportedRanking) -> Figure:
    """Draw a histogram of the components' accuracy for each sub-task, or one map of counts if there are many."""
    accuracy = np.array([ranked.accuracy for ranked in ranking.components])
    chosen = np.array([ranked.scale is not None for ranked in ranking.components])
    if len(ranking.groups) > _MOST_HISTOGRAMS:
        return _accuracy_map(ranking, accuracy)
    columns = min(len(ranking.groups), 4 if len(ranking.groups) % 4 == 0 else 3)
    rows = -(-len(ranking.groups) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(panels.flat):
        if place >= len(ranking.groups):
            axes.set_axis_off()
            continue
        axes.hist(accuracy[:, place], bins=_BINS, log=True, color=BLUE, rwidth=0.92, label="ranked")
        if chosen.any():
            axes.hist(accuracy[chosen, place], bins=_BINS, log=True, color=ORANGE, rwidth=0.92, label="scaled")
        axes.axvline(ranking.accuracy_threshold, color=INK, linestyle="--", linewidth=0.8)
        axes.set(title=shortened(one_line(ranking.groups[place]), 24), xlim=(0, 1), ylim=(0.7, None))
        axes.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.label_outer()
    figure.supxlabel("accuracy on train", fontsize=8)
    figure.supylabel("components", fontsize=8)
    if chosen.any():
        figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _accuracy_map(ranking: ReportedRanking, accuracy: np.ndarray) -> Figure:
    groups = ranking.groups[:_MOST_ROWS]
    counts = np.array([np.histogram(accuracy[:, column], bins=_BINS)[0] for column in range(len(groups))])
    figure = Figure(figsize=(WIDTH, 0.9 + 0.17 * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    extent = (0.0, 1.0, len(groups) - 0.5, -0.5)
    image = axes.imshow(
        np.ma.masked_equal(counts, 0), cmap=WEIGHTS, norm=LogNorm(0.3, max(2, counts.max())), aspect="auto",
        interpolation="none", extent=extent,
    )  # fmt: skip
    for row in range(len(groups)):
        scaled = [ranked.accuracy[row] for ranked in ranking.chosen]
        marks = axes.plot(scaled, [row] * len(scaled), "|", color=ORANGE, markersize=6, markeredgewidth=1.2)
        marks[0].set_rasterized(len(scaled) * len(groups) > _MOST_DOTS)
    axes.axvline(ranking.accuracy_threshold, color=INK, linestyle="--", linewidth=0.8)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_yticks(range(len(groups)), [shortened(one_line(group), 24) for group in groups], fontsize=6.5)
    axes.set_xlabel("accuracy on train")
    if len(groups) < len(ranking.groups):
        axes.set_title(f"the first {len(groups)} of {len(ranking.groups)} sub-tasks")
    bare(axes)
    colours = figure.colorbar(image, ax=axes, pad=0.02, aspect=40)
    colours.ax.yaxis.set_major_formatter("{x:g}")
    colours.ax.yaxis.set_minor_formatter(NullFormatter())
    colours.set_label("components")
    return figure


def precision_recall(ranking: ReportedRanking) -> Figure:
    """Draw precision over recall of every component, coloured by generalisability; scaled components are ringed."""
    recall = np.array([ranked.recall for ranked in ranking.components])
    precision = np.array([ranked.precision for ranked in ranking.components])
    level = np.array([ranking.generalisability(ranked) for ranked in ranking.components])
    chosen = np.array([ranked.scale is not None for ranked in ranking.components])
    figure = Figure(figsize=(WIDTH * 0.78, 4.2), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="recall", ylabel="precision")
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    levels = np.arange(len(ranking.groups) + 1)
    colours: Colormap = (
        ListedColormap(LEVELS(np.linspace(0, 1, len(levels)))) if len(levels) > 1 else ListedColormap([BLUE])
    )
    norm = BoundaryNorm(np.arange(len(levels) + 1) - 0.5, len(levels))
    order = np.argsort(level, kind="stable")  # the few with a high generalisability on top
    dots = axes.scatter(recall[order], precision[order], c=level[order], cmap=colours, norm=norm, s=14, linewidths=0)
    dots.set_rasterized(len(recall) > _MOST_DOTS)
    if chosen.any():
        rings = axes.scatter(
            recall[chosen], precision[chosen], s=46, facecolors="none", edgecolors=ORANGE, linewidths=1.3,
            label="scaled by the profile",
        )  # fmt: skip
        rings.set_rasterized(bool(chosen.sum() > _MOST_DOTS))
        figure.legend(loc="outside upper right")
    if len(levels) > 1:
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02, aspect=30)
        every = max(1, len(levels) // 10)
        bar.set_ticks(levels[::every].tolist(), labels=[str(n) for n in levels[::every]])
        bar.ax.tick_params(length=0, which="both")
        bar.set_label(f"sub-tasks with accuracy ≥ {100 * ranking.accuracy_threshold:.0f}%", labelpad=8)
    return figure
