"""Reports as files: reproducible, written atomically, with matplotlib loaded only to draw."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest

from steering_profiles.errors import ReportError
from steering_profiles.reports import Report, recorded_grid, render_html, render_markdown, write_report
from steering_profiles.schema import Profile
from tests.reports.reading import Page
from tests.reports.samples import POINTS, accuracy, profile, whole


def test_a_report_is_written_as_page_and_markdown(tmp_path: Path):
    report = Report(profile(), "x")
    paths = write_report(report, tmp_path / "new" / "folder")
    assert paths == (tmp_path / "new/folder/sample.html", tmp_path / "new/folder/sample.md")
    assert paths[0].read_text() == render_html(report)
    assert paths[1].read_text() == render_markdown(report)
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)


def test_the_same_report_gives_the_same_bytes(page: Page):
    assert render_html(whole()) == page.source


def test_bytes_do_not_depend_on_matplotlib_settings(page: Page):
    with mpl.rc_context({"lines.linewidth": 9, "image.origin": "lower", "svg.fonttype": "path", "scatter.marker": "x"}):
        assert render_html(whole()) == page.source
        assert mpl.rcParams["lines.linewidth"] == 9


def test_importing_the_library_loads_no_plotting():
    code = "import sys, steering_profiles; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_matplotlib_a_page_with_plots_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    install = re.escape("pip install 'steering-server[reports]'")
    with pytest.raises(ReportError, match=install):
        render_html(whole())
    with pytest.raises(ReportError, match=install):
        write_report(whole(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_plots_has_all_of_its_tables(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path, _ = write_report(whole(), tmp_path, plots=False)
    without = Page(path.read_text())
    assert without.tables == page.tables
    assert without.headings == page.headings
    assert "<figure>" not in without.source
    assert "<figure>" in page.source


@pytest.mark.slow  # imports torch in another process
def test_a_report_without_plots_never_imports_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None; from tests.reports.samples import whole;"
        "from steering_profiles.reports import render_html, render_markdown;"
        "render_html(whole(), plots=False); render_markdown(whole())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow  # imports torch in another process
def test_another_process_gives_the_same_bytes_and_loads_matplotlib_only_to_draw(page: Page):
    code = (
        "import sys; from tests.reports.samples import whole; from steering_profiles.reports import render_html;"
        "assert 'matplotlib' not in sys.modules; html = render_html(whole());"
        "assert 'matplotlib.pyplot' not in sys.modules; sys.stdout.buffer.write(html.encode())"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert again.stdout.decode() == page.source


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report = Report(profile(), "x")
    page, _ = write_report(report, tmp_path)
    old = page.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(replace(report, command="y"), tmp_path)
    assert page.read_bytes() == old
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".md"}


def test_a_recorded_grid_is_read_back():
    grid = recorded_grid(profile())
    assert len(grid) == 9 * len(POINTS)
    assert [[m.point.k, m.point.alpha, m.accuracy.correct, m.accuracy.total] for m in grid[:5]] == POINTS


@pytest.mark.parametrize("points", [None, "text", [[1, 2]], [[1, 1.5, 3, "4"]], [[1, 1.5, 3, 0]], [7]])
def test_a_record_in_another_format_is_no_grid(points: object):
    origin = profile().provenance
    assert origin is not None
    other: Profile = profile(provenance=origin.model_copy(update={"grid": {"points": points}}))
    assert recorded_grid(other) == ()


def test_a_ranking_has_one_accuracy_per_group():
    ranking = whole().ranking
    assert ranking is not None
    with pytest.raises(ValueError, match="L0H0 has 3 accuracies; required: one for each of 1 groups"):
        replace(ranking, groups=("one",))


def test_the_direction_of_a_change_is_that_of_the_counts_not_of_rounded_figures():
    before, after = accuracy(4999, of=5000, groups=("a",)), accuracy(4998, of=5000, groups=("a",))
    assert "100.0 → 100.0 −0.0 worse" in render_markdown(Report(profile(), "x", {"set": (before, after)}))
