"""``steer fit`` with method final-layer: its options and its output."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from steering_profiles.fitting import FinalLayerResult, FinalLayerSettings
from steering_profiles.fitting.final_layer import WithoutGate
from steering_server.cli import app
from steering_server.cli.fit_final_layer import FittedFinalLayer
from steering_server.cli.fitting import FitPlan
from steering_server.errors import ConfigError
from tests.reports.samples import profile
from tests.reports.test_calibration import GRID
from tests.reports.test_gate import GATED, OPENED, WITH_GATE, WITHOUT

GATED_FIT = FinalLayerResult(
    profile=profile(),
    settings=FinalLayerSettings(),
    grid=GRID,
    chosen=GRID[2],
    without_nll_limit=GRID[1],
    r2=None,
    dev=WITH_GATE,
    test=WITH_GATE,
    side_effects=GATED,
    without_gate=WithoutGate(WITHOUT, OPENED),
)


def shown(result: FinalLayerResult) -> str:
    console = Console(file=StringIO(), width=120)
    FittedFinalLayer(result).show(console)
    return " ".join(console.file.getvalue().split())


def test_the_effect_of_a_gate_is_printed_if_there_is_one():
    said = shown(GATED_FIT)
    assert "accuracy by −25.0 points without the gate and by +25.0 points with it" in said
    assert "is +3.00% (prose) without the gate and +0.40% (code) with it" in said
    assert "the gate" not in shown(replace(GATED_FIT, without_gate=None))


@pytest.mark.parametrize(
    ("old", "new", "value", "refusal"),
    [
        ("--max-drift", "--max-nll-increase", "nan", "max NLL increase is nan; allowed: finite numbers from 0"),
        ("--own-attention", "--self-only-attention", "2", "self-only attention is 2; allowed: numbers in 0..1"),
    ],
)
def test_the_former_name_of_an_option_is_accepted_with_a_warning(
    old: str, new: str, value: str, refusal: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    result = CliRunner().invoke(app, ["fit", "capitals", "--out", str(tmp_path), old, value])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == refusal
    assert caplog.messages == [f"{old} is deprecated; use {new}"]


def test_the_present_name_of_an_option_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    result = CliRunner().invoke(app, ["fit", "capitals", "--out", str(tmp_path), "--max-nll-increase", "-1"])
    assert str(result.exception) == "max NLL increase is -1; allowed: finite numbers from 0"
    assert not caplog.messages
    assert result.stderr == ""


def test_conditions_are_tried_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    plans: list[FitPlan] = []
    monkeypatch.setattr("steering_server.cli.fitting.make_profile", plans.append)
    for options in ([], ["--conditions"]):
        result = CliRunner().invoke(app, ["fit", "capitals", "--out", str(tmp_path), *options])
        assert result.exit_code == 0, result.output
    assert [plan.method.settings.conditions for plan in plans] == [False, True]
    assert ["--conditions" in plan.command for plan in plans] == [False, True]


def test_positions_that_do_not_exist_are_refused(tmp_path: Path):
    result = CliRunner().invoke(app, ["fit", "capitals", "--out", str(tmp_path), "--positions", "first"])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "positions is 'first'; allowed: all, last"


def test_positions_are_no_option_of_fits_of_components(tmp_path: Path):
    result = CliRunner().invoke(app, ["fit", "parentheses", "--out", str(tmp_path), "--positions", "last"])
    assert isinstance(result.exception, ConfigError)
    assert "--positions has no effect with method stepwise" in str(result.exception)
