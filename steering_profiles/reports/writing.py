"""Reports as text and as files.

The modules that build a page are imported when they are used, since they take a second to load.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from steering_profiles.fitting import Explanation
from steering_profiles.reports.report import Report
from steering_profiles.writing import write_whole

if TYPE_CHECKING:
    from steering_profiles.reports.blocks import Page


def render_html(report: Report, plots: bool = True) -> str:
    """Return ``report`` as one self-contained HTML page, without plots if ``plots`` is False.

    The same report gives the same text.

    Raises:
        ReportError: ``plots`` is True and matplotlib is not installed.
    """
    from steering_profiles.reports.html import html_of
    from steering_profiles.reports.report_page import page_of

    return html_of(page_of(report), plots)


def render_markdown(report: Report) -> str:
    """Return ``report`` as Markdown with the tables of the page and without plots.

    The same report gives the same text.
    """
    from steering_profiles.reports.markdown import markdown_of
    from steering_profiles.reports.report_page import page_of

    return markdown_of(page_of(report))


def write_report(report: Report, folder: Path, plots: bool = True) -> tuple[Path, Path]:
    """Write ``folder/NAME.html`` and ``folder/NAME.md``, where NAME is the profile's name, and return their paths.

    Both are rendered before either is written, and each is replaced atomically. ``plots`` is as in :func:`render_html`.

    Raises:
        OSError: the files cannot be written.
        ReportError: ``plots`` is True and matplotlib is not installed.
    """
    from steering_profiles.reports.report_page import page_of

    return _write_page(page_of(report), folder, plots)


def write_explanation(explanation: Explanation, command: str, folder: Path, plots: bool = True) -> tuple[Path, Path]:
    """Write the report of ``explanation`` as :func:`write_report` does; NAME is ``explain-TASK-layer-N``.

    The report shows ``command`` as the command that reproduces it.

    Raises:
        OSError: the files cannot be written.
        ReportError: ``plots`` is True and matplotlib is not installed.
    """
    from steering_profiles.reports.explanation_page import page_of_explanation

    return _write_page(page_of_explanation(explanation, command), folder, plots)


def _write_page(page: "Page", folder: Path, plots: bool) -> tuple[Path, Path]:
    from steering_profiles.reports.html import html_of
    from steering_profiles.reports.markdown import markdown_of

    contents = {".html": html_of(page, plots), ".md": markdown_of(page)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{page.name}{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_whole(path, content.encode())
    return paths[0], paths[1]
