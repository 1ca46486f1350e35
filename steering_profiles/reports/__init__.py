"""Reports on a profile or on a layer, as an HTML page and a Markdown file."""

from steering_profiles.reports.attention import HeadAttention, attention_patterns
from steering_profiles.reports.fit_report import report_of_final_layer, report_of_fit
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
    "report_of_fit",
    "write_explanation",
    "write_report",
]
