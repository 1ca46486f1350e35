"""The result as plain data, for JSON."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering_ab.analysis.comparison import PairComparison
    from steering_ab.analysis.result import Result

VERSION = 1
"""Version of the format; it grows when a field changes its meaning or goes."""


def record_of(result: "Result") -> dict[str, Any]:
    """Return all figures of ``result``."""
    return {
        "version": VERSION,
        "settings": result.settings.model_dump(),
        "about": dict(result.about),
        "dataset": {
            "name": result.dataset.name,
            "content_hash": result.dataset.content_hash,
            "items": len(result.dataset.items),
            "tags": list(result.dataset.tags),
            "repeated_questions": result.dataset.repeated,
        },
        "arms": [asdict(rate) for rate in result.rates],
        "comparisons": [_comparison(result, each) for each in result.comparisons],
        "by_tag": [_comparison(result, each) for each in result.tagged],
        "requirements": [
            {"requirement": each.requirement.text, "holds": each.holds, "why": each.why} for each in result.checked
        ],
        "flips": [
            {
                "item": flip.item.id,
                "line": flip.item.line,
                "reference": flip.reference,
                "arm": flip.arm,
                "difference": flip.difference,
            }
            for flip in result.flips()
        ],
        "answers": [asdict(effort) for effort in result.efforts],
        "unusable_lines": [asdict(fault) for fault in result.dataset.faults],
        "refused_lines": [asdict(fault) for fault in result.refused],
        "unanswered_lines": [asdict(fault) for fault in result.unanswered],
        "failed_grades": [asdict(failure) for failure in result.failures],
    }


def _comparison(result: "Result", comparison: "PairComparison") -> dict[str, Any]:
    planned = result.detect if comparison.is_rate else abs(comparison.difference)
    needed = comparison.items_needed(planned) if planned else None
    return asdict(comparison) | {
        "verdict": comparison.verdict,
        "planned_difference": planned,
        "items_needed": needed,
        "items_still_needed": None if needed is None else max(0, needed - comparison.items),
    }
