"""Plot of the dev NLL over the settings of the final layer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from steering_profiles.fit_settings import Source
from steering_profiles.fitting.final_layer_candidates import PLAIN, MeasuredCandidate
from steering_profiles.reports.plots.style import LEVELS, ORANGE, WIDTH, bare, ink_on
from steering_profiles.reports.text import number
from steering_profiles.side_effect_warnings import exceeds_limit

_MOST_COLUMNS_LABELLED = 20
"""Maximum number of columns whose cells are labelled with their NLL."""
_NAMES: dict[Source, str] = {"regression": "of the regression", "mean": "mean output of the MLP"}


def final_layer_maps(grid: Sequence[MeasuredCandidate], chosen: MeasuredCandidate) -> Figure:
    """Draw a map per source of the intercept, with self-only attention in rows and shares of the intercept in columns.

    Cells without an intercept are the same in all maps. Only candidates without a gate are shown, at the positions of
    the chosen one and under its condition.
    """
    grid = [
        m
        for m in grid
        if m.candidate.gate is None and (m.candidate == PLAIN or m.candidate.when == chosen.candidate.when)
    ]
    owns = sorted({m.candidate.self_only_attention for m in grid})
    scales = sorted({m.candidate.intercept_scale for m in grid})
    sources: list[Source | None] = list(dict.fromkeys(m.candidate.source for m in grid if m.candidate.source)) or [None]
    values = [m.dev.tempered_nll for m in grid]
    least, most = min(values), max(values)
    height = 0.7 + 0.3 * len(owns)
    figure = Figure(figsize=(WIDTH, 0.4 + height * len(sources)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(sources), 1, sharex=True))
    for axes, source in zip(panels, sources, strict=True):
        shown = {(m.candidate.self_only_attention, m.candidate.intercept_scale): m for m in grid if _belongs(m, source)}
        nll = np.full((len(owns), len(scales)), np.nan)
        for (own, scale), measured in shown.items():
            row, column = owns.index(own), scales.index(scale)
            nll[row, column] = measured.dev.tempered_nll
            place = (column - 0.5, row - 0.5)
            if measured.other is not None and exceeds_limit(measured.other.nll_increase):
                axes.add_patch(Rectangle(place, 1, 1, fill=False, hatch="///", linewidth=0, alpha=0.35))
            if measured.candidate == replace(chosen.candidate, gate=None):
                frame = Rectangle(place, 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5, zorder=5)
                axes.add_patch(frame).set_clip_on(False)
            if len(scales) <= _MOST_COLUMNS_LABELLED:
                level = 1 - (measured.dev.tempered_nll - least) / ((most - least) or 1)
                axes.text(
                    column,
                    row,
                    f"{measured.dev.tempered_nll:.2f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=ink_on(level),
                )
        image = axes.imshow(
            np.ma.masked_invalid(nll),
            cmap=LEVELS.reversed(),
            vmin=least,
            vmax=most,
            aspect="auto",
            interpolation="none",
        )
        axes.set_yticks(range(len(owns)), [number(own) for own in owns])
        axes.set_ylabel("self-only\nattention")
        axes.set_title("" if source is None else f"intercept: {_NAMES[source]}", loc="left")
        bare(axes)
        colours = figure.colorbar(image, ax=axes, pad=0.02, aspect=12)
        colours.set_label("dev NLL")
        colours.outline.set_visible(False)
    panels[-1].set_xticks(range(len(scales)), [number(scale) for scale in scales])
    panels[-1].set_xlabel("lambda: subtracted share of the intercept")
    return figure


def _belongs(measured: MeasuredCandidate, source: Source | None) -> bool:
    return measured.candidate.source is None or measured.candidate.source == source
