"""Reports as text and as files. What draws is imported where it is needed: it takes a second to load."""

from pathlib import Path
from typing import TYPE_CHECKING

from steering_profiles.fitting import Explanation
from steering_profiles.reports.report import Report
from steering_profiles.writing import write_whole

if TYPE_CHECKING:
    from steering_profiles.reports.blocks import Page


def render_html(report: Report) -> str:
    """Return ``report`` as one self-contained HTML page; the same report gives the same text."""
    from steering_profiles.reports.html import html_of
    from steering_profiles.reports.report_page import page_of

    return html_of(page_of(report))


def render_markdown(report: Report) -> str:
    """Return ``report`` as a Markdown file with the page's tables; the same report gives the same text."""
    from steering_profiles.reports.markdown import markdown_of
    from steering_profiles.reports.report_page import page_of

    return markdown_of(page_of(report))


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``folder/NAME.html`` and ``folder/NAME.md``, NAME being the profile's; return their paths.

    Both are made before either is written, and a reader sees the old file or the new one, never half of it.

    Raises:
        OSError: nothing can be written there.
    """
    from steering_profiles.reports.report_page import page_of

    return _write_page(page_of(report), folder)


def write_explanation(explanation: Explanation, command: str, folder: Path) -> tuple[Path, Path]:
    """Write ``explanation`` as :func:`write_report` writes a report; ``command`` is what makes it again.

    NAME is ``explain-TASK-layer-N``.

    Raises:
        OSError: nothing can be written there.
    """
    from steering_profiles.reports.explanation_page import page_of_explanation

    return _write_page(page_of_explanation(explanation, command), folder)


def _write_page(page: "Page", folder: Path) -> tuple[Path, Path]:
    from steering_profiles.reports.html import html_of
    from steering_profiles.reports.markdown import markdown_of

    contents = {".html": html_of(page), ".md": markdown_of(page)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{page.name}{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_whole(path, content.encode())
    return paths[0], paths[1]
