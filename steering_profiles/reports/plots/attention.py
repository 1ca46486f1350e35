"""Plot of attention patterns."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from steering_profiles.reports.attention import HeadAttention
from steering_profiles.reports.plots.style import RULE, WEIGHTS, WIDTH, bare
from steering_profiles.reports.text import shortened, visible

_MOST_TOKENS = 32
"""Number of last tokens of a prompt that are shown, so that the labels are readable."""
_COLUMNS = 3


def attention_maps(patterns: Sequence[HeadAttention]) -> Figure:
    """Draw one map per head: a row for each attending token, a column for each attended one."""
    columns = min(_COLUMNS, len(patterns))
    rows = -(-len(patterns) // columns)
    size = WIDTH / _COLUMNS
    figure = Figure(figsize=(size * columns, size * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, pattern in zip(panels.flat, patterns, strict=False):
        start = max(0, len(pattern.tokens) - _MOST_TOKENS)
        labels = [shortened(visible(token), 10) for token in pattern.tokens[start:]]
        image = axes.imshow(pattern.weights[start:, start:], cmap=WEIGHTS, vmin=0, vmax=1, interpolation="none")
        font = max(4.0, min(7.0, 130 / len(labels)))
        upright = {"rotation": 90, "rotation_mode": "anchor", "ha": "right", "va": "center"}
        axes.set_xticks(range(len(labels)), labels, fontsize=font, **upright)
        axes.set_yticks(range(len(labels)), labels, fontsize=font)
        cut = f", last {len(labels)} of {len(pattern.tokens)} tokens" if start else ""
        axes.set_title(f"{pattern.component}{cut}")
        bare(axes)
        axes.spines[:].set(visible=True, color=RULE)
    for axes in list(panels.flat)[len(patterns) :]:
        axes.set_axis_off()
    figure.colorbar(image, ax=panels, location="bottom", aspect=60, pad=0.02, label="attention", shrink=0.5)
    return figure
