"""The plots of a report: functions that draw a :class:`matplotlib.figure.Figure`; :mod:`.style` converts it to SVG.

Each is imported when it is first used, so that matplotlib is loaded only to draw.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering_profiles.reports.plots.attention import attention_maps
    from steering_profiles.reports.plots.explanation import argument_map, coefficients
    from steering_profiles.reports.plots.final_layer import final_layer_maps
    from steering_profiles.reports.plots.gate import gate_plot
    from steering_profiles.reports.plots.grid import grid_map
    from steering_profiles.reports.plots.path import path_plot
    from steering_profiles.reports.plots.ranking import accuracy_histograms, precision_recall
    from steering_profiles.reports.plots.reliability import reliability_plot
    from steering_profiles.reports.plots.scales import head_scales, neurons_per_layer

__all__ = [
    "accuracy_histograms",
    "argument_map",
    "attention_maps",
    "coefficients",
    "final_layer_maps",
    "gate_plot",
    "grid_map",
    "head_scales",
    "neurons_per_layer",
    "path_plot",
    "precision_recall",
    "reliability_plot",
]

_MODULES = {
    "accuracy_histograms": "ranking",
    "argument_map": "explanation",
    "attention_maps": "attention",
    "coefficients": "explanation",
    "final_layer_maps": "final_layer",
    "gate_plot": "gate",
    "grid_map": "grid",
    "head_scales": "scales",
    "neurons_per_layer": "scales",
    "path_plot": "path",
    "precision_recall": "ranking",
    "reliability_plot": "reliability",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
