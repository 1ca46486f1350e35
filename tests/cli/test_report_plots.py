"""The warning of commands that write a report where matplotlib is not installed."""

import sys
from io import StringIO

import pytest
from rich.console import Console

from steering_server.cli.report_plots import can_draw_plots


def test_an_installed_matplotlib_gives_no_warning():
    out = StringIO()
    assert can_draw_plots(Console(file=out))
    assert out.getvalue() == ""


def test_a_missing_matplotlib_gives_a_warning_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = StringIO()
    assert not can_draw_plots(Console(file=out))
    assert "no plots" in out.getvalue()
    assert "pip install 'steering-server[reports]'" in out.getvalue()
