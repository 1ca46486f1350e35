"""``steer reproduce`` on the model of its table that is always available."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STEER = str(Path(sys.executable).with_name("steer"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_embedded_models_figures_are_printed_beside_the_published_ones(tmp_path: Path):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [STEER, "reproduce", "SmolLM2-135M-Instruct", "--json", str(figures)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    assert {"published, plain", "ours, steered"} <= {
        line.split("│")[1].strip() for line in done.stdout.splitlines() if "│" in line
    }
    (record,) = json.loads(figures.read_text())
    published, ours = record["published"], record["ours"]
    assert list(ours["before"].values()) == pytest.approx(published["before"], abs=2)
    assert list(ours["after"].values()) == pytest.approx(published["after"], abs=2)
