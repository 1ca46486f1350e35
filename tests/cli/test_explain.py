"""``steer explain``: its output, its report, and errors that are reported before the model is loaded."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from steering_profiles.errors import FitError, ModelError, TaskError
from steering_server.cli.commands.explain import explain
from steering_server.errors import ConfigError
from tests.builders import build_model
from tests.cli.subprocesses import steer
from tests.cli.tasks import write_task


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model in a folder."""
    root = tmp_path_factory.mktemp("own")
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(root)
    loaded.tokenizer.save_pretrained(root)
    return str(root)


def test_explain_prints_the_explanation_and_writes_a_page_with_its_command(model: str, tmp_path: Path):
    task = write_task(tmp_path / "parity.jsonl")
    options = ["--task", str(task), "--layer", "-2", "--ridge", "0.5", "--prompts", "9", "--out", str(tmp_path / "out")]
    of_model = ["--model", model, "--dtype", "float32"]
    result = steer("explain", *options, *of_model)
    assert result.returncode == 0, result.stderr
    for told in ("R²", "L1H3", "stream", "suppressed", "intercept", "residual", "whole MLP"):
        assert told in result.stdout
    assert "argument-passing heads: none of 9 prompts has a known topic" in " ".join(result.stdout.split())
    assert "the fit predicts the output no better than its mean does" in " ".join(result.stdout.split())
    page, text = (tmp_path / "out" / f"explain-parity-layer-1.{kind}" for kind in ("html", "md"))
    assert f"wrote {page}" in result.stdout
    assert "<html" in page.read_text()
    command = (
        f"steer explain --task {task} --layer 1 --out {tmp_path / 'out'} --ridge 0.5 --prompts 9 {' '.join(of_model)}"
    )
    assert command in text.read_text()


def test_a_layer_that_does_not_exist_is_refused_and_the_allowed_ones_are_named(model: str, tmp_path: Path):
    task = write_task(tmp_path / "parity.jsonl")
    with pytest.raises(ModelError, match=r"layer is 3; allowed for .*: 0\.\.2, or -3\.\.-1 counted from the end"):
        explain(task=str(task), layer=3, model=model)


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"task": "nope"}, TaskError, "task is 'nope'; known tasks:"),
        ({"ridge": math.nan}, FitError, "ridge is nan; allowed: finite numbers from 0"),
        ({"out": Path("/dev/null/x")}, ConfigError, "--out is '/dev/null/x', a folder that cannot be written to"),
    ],
)
def test_errors_are_reported_before_the_model_is_loaded(option: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        explain(**option, model="./nowhere/model")
