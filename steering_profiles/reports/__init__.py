"""Reports on a profile or on a layer, as an HTML page and a Markdown file."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering_profiles.reports.attention import HeadAttention, attention_patterns
    from steering_profiles.reports.fit_report import report_of_final_layer, report_of_final_layer_groups, report_of_fit
    from steering_profiles.reports.report import (
        FinalLayerSearch,
        MethodResult,
        RankedComponent,
        Report,
        ReportedRanking,
        ReportedStep,
        recorded_grid,
    )
    from steering_profiles.reports.writing import render_html, render_markdown, write_explanation, write_report

__all__ = [
    "FinalLayerSearch",
    "HeadAttention",
    "MethodResult",
    "RankedComponent",
    "Report",
    "ReportedRanking",
    "ReportedStep",
    "attention_patterns",
    "recorded_grid",
    "render_html",
    "render_markdown",
    "report_of_final_layer",
    "report_of_final_layer_groups",
    "report_of_fit",
    "write_explanation",
    "write_report",
]

_MODULES = {
    "HeadAttention": "attention",
    "attention_patterns": "attention",
    "report_of_final_layer": "fit_report",
    "report_of_final_layer_groups": "fit_report",
    "report_of_fit": "fit_report",
    "FinalLayerSearch": "report",
    "MethodResult": "report",
    "RankedComponent": "report",
    "Report": "report",
    "ReportedRanking": "report",
    "ReportedStep": "report",
    "recorded_grid": "report",
    "render_html": "writing",
    "render_markdown": "writing",
    "write_explanation": "writing",
    "write_report": "writing",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the blocks of a page need no tensor library."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
