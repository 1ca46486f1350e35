"""Comparison of the arms of a language model on a data set: answers, grades, paired statistics and a report.

import steering_ab

result = steering_ab.ab("questions.jsonl", ["baseline", "parentheses"])
print(result.to_markdown())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering_ab.analysis.comparison import PairComparison
    from steering_ab.analysis.result import Result
    from steering_ab.comparing import ab, ab_async
    from steering_ab.datasets import Dataset, Item, read_dataset
    from steering_ab.errors import ABError
    from steering_ab.graders.grader import Answer, Grader

__all__ = [
    "ABError",
    "Answer",
    "Dataset",
    "Grader",
    "Item",
    "PairComparison",
    "Result",
    "ab",
    "ab_async",
    "read_dataset",
]

_MODULES = {
    "ABError": "errors",
    "Answer": "graders.grader",
    "Dataset": "datasets",
    "Grader": "graders.grader",
    "Item": "datasets",
    "PairComparison": "analysis.comparison",
    "Result": "analysis.result",
    "ab": "comparing",
    "ab_async": "comparing",
    "read_dataset": "datasets",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that the command line starts at once."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
