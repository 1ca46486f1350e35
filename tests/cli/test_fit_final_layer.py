"""What ``steer fit`` prints of a fit of the final layer's settings."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from steering_profiles.fitting import FinalLayerResult, FinalLayerSettings
from steering_profiles.fitting.final_layer import WithoutGate
from steering_server.cli.fit_final_layer import FittedFinalLayer
from tests.reports.samples import profile
from tests.reports.test_calibration import GRID
from tests.reports.test_gate import BEHIND, GATED, OPENED, WITHOUT

GATED_FIT = FinalLayerResult(
    profile=profile(),
    settings=FinalLayerSettings(),
    grid=GRID,
    chosen=GRID[2],
    without_drift_limit=GRID[1],
    r2=None,
    dev=BEHIND,
    test=BEHIND,
    side_effects=GATED,
    without_gate=WithoutGate(WITHOUT, OPENED),
)


def shown(result: FinalLayerResult) -> str:
    console = Console(file=StringIO(), width=120)
    FittedFinalLayer(result).show(console)
    return " ".join(console.file.getvalue().split())


def test_what_the_gate_buys_is_said_where_there_is_one():
    said = shown(GATED_FIT)
    assert "accuracy by −25.0 points without the gate and by +25.0 behind it" in said
    assert "+3.00% at worst (prose) without the gate, by +0.40% (code) behind it" in said
    assert "the gate" not in shown(replace(GATED_FIT, without_gate=None))
