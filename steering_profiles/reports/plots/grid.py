"""Plot of dev accuracy over the number of components and their scale."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from steering_profiles.fitting.grid import GridPoint, MeasuredPoint
from steering_profiles.reports.plots.style import LEVELS, ORANGE, WIDTH, bare, ink_on
from steering_profiles.reports.text import number

_MOST_LABELLED = 200
"""Maximum number of cells that are labelled with their accuracy."""


def grid_map(grid: Sequence[MeasuredPoint], chosen: GridPoint | None) -> Figure:
    """Draw a cell per point, with the number of components in rows and scales in columns. k = 0 fills a row."""
    alphas = sorted({m.point.alpha for m in grid if m.point.k}) or sorted({m.point.alpha for m in grid})
    counts = sorted({m.point.k for m in grid})
    percent = np.full((len(counts), len(alphas)), np.nan)
    partial: list[tuple[int, int]] = []
    most = max(m.accuracy.total for m in grid)
    for measured in grid:
        if not measured.accuracy.total:
            continue
        row = counts.index(measured.point.k)
        columns = [alphas.index(measured.point.alpha)] if measured.point.k else range(len(alphas))
        for column in columns:
            percent[row, column] = 100 * measured.accuracy.correct / measured.accuracy.total
        if measured.accuracy.total < most:
            partial += [(row, column) for column in columns]

    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * min(len(counts), 24)), layout="constrained")
    axes = figure.add_subplot()
    lowest = min(float(np.floor(np.nanmin(percent))), 99.0)  # so that a plateau of 100 has the colour of the top
    image = axes.imshow(
        np.ma.masked_invalid(percent),
        cmap=LEVELS,
        vmin=lowest,
        vmax=100,
        aspect="auto",
        interpolation="none",
    )
    for row, column in partial:
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="///", linewidth=0, alpha=0.35))
    if percent.size <= _MOST_LABELLED:
        for (row, column), value in np.ndenumerate(percent):
            if not np.isnan(value):
                ink = ink_on((value - lowest) / (100 - lowest))
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=ink)
    for row, column in _cells_of(chosen, counts, alphas):
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5, zorder=5)
        axes.add_patch(frame).set_clip_on(False)
    every = -(-len(alphas) // 16)
    axes.set_xticks(range(0, len(alphas), every), [f"×{number(alpha)}" for alpha in alphas[::every]])
    every = -(-len(counts) // 24)
    axes.set_yticks(range(0, len(counts), every), [str(k) if k else "0 (unsteered)" for k in counts[::every]])
    axes.set_xlabel("scale")
    axes.set_ylabel("components")
    bare(axes)
    colours = figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    colours.set_label("dev accuracy, %")
    colours.outline.set_visible(False)
    return figure


def _cells_of(chosen: GridPoint | None, counts: Sequence[int], alphas: Sequence[float]) -> list[tuple[int, int]]:
    if chosen is None or chosen.k not in counts or (chosen.k and chosen.alpha not in alphas):
        return []
    columns = [alphas.index(chosen.alpha)] if chosen.k else range(len(alphas))
    return [(counts.index(chosen.k), column) for column in columns]
