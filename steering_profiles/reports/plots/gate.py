"""Plot of the effect of a gate."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steering_profiles.reports.gate import GateComparison
from steering_profiles.reports.plots.style import BLUE, MUTED, ORANGE, RULE, WIDTH
from steering_profiles.reports.text import shortened
from steering_profiles.side_effect_warnings import NLL_LIMIT

_LABELS = ("without gate", "with gate")
_MOST_LABEL = 24


def gate_plot(comparison: GateComparison) -> Figure:
    """Draw the NLL decrease of the correct answer on test and the NLL increase of other text, without and with gate."""
    prompts, pairs = comparison.prompts, comparison.pairs
    figure = Figure(figsize=(WIDTH, 0.9 + 0.34 * max(len(prompts), len(pairs))), layout="constrained")
    task, other = figure.subplots(1, 2)
    _bars(task, list(prompts), [[one[0].nll - one[at].nll for one in prompts.values()] for at in (1, 2)])
    task.set_xlabel("NLL decrease of the correct answer on test, nats")
    _bars(other, [text.name for text, _ in pairs], [[100 * pair[at].nll_increase for pair in pairs] for at in (0, 1)])
    other.axvline(100 * NLL_LIMIT, color=MUTED, linewidth=1, linestyle="--")
    other.set_xlabel("NLL increase of other text, %")
    figure.legend(*task.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _bars(axes: Axes, names: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    """Draw one pair of bars for each name, with the first name at the top."""
    at = np.arange(len(names))
    for shift, lengths, colour, label in zip((-0.2, 0.2), values, (BLUE, ORANGE), _LABELS, strict=True):
        axes.barh(at + shift, lengths, height=0.36, color=colour, label=label)
    axes.set_yticks(at, [shortened(name, _MOST_LABEL) for name in names])
    axes.invert_yaxis()
    axes.axvline(0, color=RULE, linewidth=0.8)
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
