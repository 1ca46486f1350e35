"""Plots of a report on a layer."""

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from steering_profiles.fitting import Explanation
from steering_profiles.fitting.argument_heads import ArgumentHeads
from steering_profiles.reports.plots.style import BLUE, INK, ORANGE, RULE, WEIGHTS, WIDTH, bare

_EFFECTS: Colormap = LinearSegmentedColormap.from_list(
    "effects",
    [(0, to_rgba(BLUE, 1)), (0.5, to_rgba(BLUE, 0)), (0.5, to_rgba(ORANGE, 0)), (1, to_rgba(ORANGE, 1))],
)
"""Colours from an increase (blue), over no change (transparent), to a decrease (orange)."""
_CELL = 0.2  # inches
_TALLEST = 6.0


def coefficients(explanation: Explanation) -> Figure:
    """Draw the coefficient of each head and of the residual stream as a bar."""
    fitted = explanation.decomposition
    values = np.array([*fitted.heads.tolist(), fitted.residual_stream])
    labels = [*(str(head) for head in range(len(values) - 1)), "residual stream"]
    figure = Figure(figsize=(min(WIDTH, 1.5 + 0.4 * len(values)), 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(values)), values, color=[ORANGE if value > 0 else BLUE for value in values])
    axes.axhline(0, color=INK, linewidth=0.8)
    every = -(-len(values) // 24)
    ticks = sorted({*range(0, len(values) - 1, every), len(values) - 1})
    axes.set_xticks(ticks, [labels[tick] for tick in ticks])
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"head of layer {explanation.layer}")
    axes.set_ylabel("coefficient")
    return figure


def argument_map(found: ArgumentHeads, layers: int, heads: int) -> Figure:
    """Draw two maps of all heads of the model: the decrease of P(answer), and the attention to the topic."""
    effect, attention = np.zeros((heads, layers)), np.zeros((heads, layers))
    for head in found.heads:
        place = head.component.index, head.component.layer
        effect[place], attention[place] = 100 * head.effect, 100 * head.attention
    height = min(_TALLEST, max(1.2, heads * _CELL + 0.5))
    figure = Figure(figsize=(min(WIDTH, 1.8 + layers * 1.4 * _CELL), 2 * height), layout="constrained")
    largest = max(1.0, float(np.abs(effect).max()))
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, values, colours, least, most, title in (
        (upper, effect, _EFFECTS, -largest, largest, "decrease of P(answer), %"),
        (lower, attention, WEIGHTS, 0, 100, "attention to the topic, %"),
    ):
        image = axes.imshow(
            values, cmap=colours, vmin=least, vmax=most, aspect="auto", interpolation="none", origin="lower"
        )
        axes.set_title(title)
        axes.set_ylabel("head")
        axes.yaxis.get_major_locator().set_params(integer=True)
        bare(axes)
        axes.spines[:].set(visible=True, color=RULE)
        figure.colorbar(image, ax=axes, pad=0.02, aspect=20)
    lower.set_xlabel("layer")
    lower.xaxis.get_major_locator().set_params(integer=True)
    return figure
