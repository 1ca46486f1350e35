"""Reports as text and as files. What draws is imported where it is needed: it takes a second to load."""

import tempfile
from pathlib import Path

from steering_profiles.reports.report import Report


def render_html(report: Report) -> str:
    """Return ``report`` as one self-contained HTML page; the same report gives the same text."""
    from steering_profiles.reports.html import page

    return page(report)


def render_markdown(report: Report) -> str:
    """Return ``report`` as a Markdown file with the page's tables; the same report gives the same text."""
    from steering_profiles.reports.markdown import document

    return document(report)


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``folder/NAME.html`` and ``folder/NAME.md``, NAME being the profile's; return their paths.

    Both are made before either is written, and a reader sees the old file or the new one, never half of it.

    Raises:
        OSError: nothing can be written there.
    """
    contents = {".html": render_html(report), ".md": render_markdown(report)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{report.profile.name}{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        _write_whole(path, content.encode())
    return paths[0], paths[1]


def _write_whole(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as partial:
        try:
            partial.write(content)
            partial.close()
            Path(partial.name).chmod(0o644)
            Path(partial.name).replace(path)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise
