"""Plots of the components that a profile scales."""

from collections import Counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from steering_profiles.reports.plots.style import BLUE, ORANGE, RULE, WIDTH, bare
from steering_profiles.reports.text import number, shortened
from steering_profiles.schema import Profile

_LARGEST_CELL = 0.3  # inches
_SMALLEST_LABELLED = 0.22
_FAINTEST = 0.35
_MOST_CHARACTERS = 100  # of a condition in a title


def head_scales(profile: Profile) -> Figure:
    """Draw every head of the model as a cell, with layers on the x axis; scaled heads are coloured by their scale.

    A profile with several conditions has a map for each.
    """
    maps = [part for part in profile.split() if part.heads]
    layers, heads = profile.model.layers, profile.model.heads
    cell = min(_LARGEST_CELL, (WIDTH - 0.8) / layers)
    height = (cell * heads + 0.7) * len(maps) + (0.25 * len(maps) if len(maps) > 1 else 0)
    figure = Figure(figsize=(max(3.0, cell * layers + 0.8), height), layout="constrained")
    for axes, part in zip(figure.subplots(len(maps), squeeze=False).flat, maps, strict=True):
        _draw_heads(axes, part, cell)
        if len(maps) > 1:
            axes.set_title(
                shortened(f"where {part.when}" if part.when else "everywhere", _MOST_CHARACTERS), fontsize=6.5
            )
    return figure


def _draw_heads(axes: Axes, profile: Profile, cell: float) -> None:
    layers, heads = profile.model.layers, profile.model.heads
    axes.set(xlim=(-0.5, layers - 0.5), ylim=(-0.5, heads - 0.5), aspect="equal")
    axes.set_xticks(np.arange(-0.5, layers), minor=True)
    axes.set_yticks(np.arange(-0.5, heads), minor=True)
    axes.grid(which="minor", color=RULE, linewidth=0.5)
    strongest = max(abs(scale.scale - 1) for scale in profile.heads) or 1.0
    several = len({scale.scale for scale in profile.heads}) > 1
    for scale in profile.heads:
        depth = _FAINTEST + (1 - _FAINTEST) * abs(scale.scale - 1) / strongest
        colour = to_rgba(ORANGE if scale.scale > 1 else BLUE, depth)
        axes.add_patch(Rectangle((scale.layer - 0.5, scale.head - 0.5), 1, 1, facecolor=colour, linewidth=0, zorder=2))
        if several and cell >= _SMALLEST_LABELLED:
            axes.text(scale.layer, scale.head, number(round(scale.scale, 2)), ha="center", va="center", fontsize=5.5)
    for axis, count in ((axes.xaxis, layers), (axes.yaxis, heads)):
        every = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000, 10**9) if step * cell >= 0.2)
        axis.set_ticks(range(0, count, every))
    axes.set_xlabel("layer")
    axes.set_ylabel("head")
    bare(axes)
    axes.tick_params(which="minor", length=0)


def neurons_per_layer(profile: Profile) -> Figure:
    """Draw the number of amplified and of weakened neurons per layer."""
    layers = np.arange(profile.model.layers)
    figure = Figure(figsize=(WIDTH, 1.9), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.7, len(layers) - 0.3))
    amplified = Counter(neuron.layer for neuron in profile.neurons if neuron.scale > 1)
    weakened = Counter(neuron.layer for neuron in profile.neurons if neuron.scale <= 1)
    up, down = (np.array([count[int(layer)] for layer in layers]) for count in (amplified, weakened))
    if up.any():
        axes.bar(layers, up, width=0.8, color=ORANGE, label="amplified")
    if down.any():
        axes.bar(layers, down, width=0.8, bottom=up, color=BLUE, label="weakened")
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel("layer")
    axes.set_ylabel("neurons")
    if up.any() and down.any():
        axes.legend()
    return figure
