"""The report as texts and as files."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering_ab.errors import RunError
from steering_ab.report.page import page_of
from steering_ab.report.record import record_of
from steering_profiles.reports.html import html_of
from steering_profiles.reports.markdown import markdown_of
from steering_profiles.writing import write_whole

if TYPE_CHECKING:
    from steering_ab.analysis.result import Result

COLUMNS = ("id", "line", "tags", "question", "expected", "arm", "repeat", "answer")
_AFTER = ("finish_reason", "prompt_tokens", "tokens", "first_token_seconds", "seconds")


def html(result: "Result") -> str:
    """Return the report as one HTML page without scripts. All text is escaped."""
    return html_of(page_of(result))


def markdown(result: "Result") -> str:
    """Return the report as Markdown. All text is escaped."""
    return markdown_of(page_of(result))


def json_text(result: "Result") -> str:
    """Return all figures as JSON."""
    return json.dumps(record_of(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(result: "Result") -> str:
    """Return every answer as a row of CSV, with a column for each grader."""
    text = io.StringIO()
    graders = [graded.grading.name for graded in result.graded]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"grade:{name}" for name in graders), *_AFTER])
    writer.writerows(_rows(result))
    return text.getvalue()


def write_reports(result: "Result", folder: str | Path) -> Mapping[str, Path]:
    """Write ``report.html``, ``report.md``, ``report.json`` and ``items.csv``; return their paths by suffix.

    All are made before one is written, and each is replaced atomically.

    Raises:
        RunError: they cannot be written.
    """
    page = page_of(result)
    contents = {
        "report.html": html_of(page),
        "report.md": markdown_of(page),
        "report.json": json_text(result),
        "items.csv": csv_text(result),
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_whole(folder / name, content.encode(errors="backslashreplace"))
    except OSError as exc:
        raise RunError(f"the report cannot be written to {folder}: {exc.strerror}") from exc
    return {name.rpartition(".")[2]: folder / name for name in contents}


def _rows(result: "Result") -> Iterator[list[Any]]:
    for item in result.dataset.items:
        for arm in result.arms:
            for repeat in range(result.settings.repeats):
                answer = result.answer(item, repeat, arm)
                if answer is None:
                    continue
                about = [item.id, item.line, ";".join(item.tags), item.question, "\n".join(item.expected)]
                grades = [_grade(result, index, item.id, arm, repeat) for index in range(len(result.graded))]
                yield [*about, arm, repeat, answer.text, *grades, *(getattr(answer, name) for name in _AFTER)]


def _grade(result: "Result", index: int, item: str, arm: str, repeat: int) -> Any:
    """Return a grade; of a judge the verdicts against the other arms, as text."""
    graded = result.graded[index]
    if not graded.grading.pairwise:
        return graded.grades.get(item, {}).get(arm, {}).get(repeat)
    said = []
    for (first, second), by_item in graded.verdicts.items():
        verdict = by_item.get(item, {}).get(repeat)
        if verdict is not None and arm in (first, second):
            sign = 1 if arm == second else -1
            word = {1: "better than", -1: "worse than", 0: "as good as"}[round(sign * verdict.preference)]
            said.append(f"{word} {first if arm == second else second}")
    return "; ".join(said)
