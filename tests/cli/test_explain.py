"""``steer explain``: what it prints, what it writes, and what it refuses before any work."""

from pathlib import Path

import pytest
import torch

from tests.builders import build_model
from tests.cli.test_commands import steer, write_task


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name a small model in a folder."""
    root = tmp_path_factory.mktemp("own")
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(root)
    loaded.tokenizer.save_pretrained(root)
    return ["--model", str(root), "--dtype", "float32"]


def test_it_prints_the_explanation_and_writes_it_as_a_page_that_says_how_to_make_it_again(
    model: list[str], tmp_path: Path
):
    task = write_task(tmp_path / "parity.jsonl")
    options = ["--task", str(task), "--layer", "-2", "--ridge", "0.5", "--prompts", "9", "--out", str(tmp_path / "out")]
    result = steer("explain", *options, *model)
    assert result.returncode == 0, result.stderr
    for told in ("R²", "L1H3", "stream", "pushes away from", "intercept", "residual", "the whole MLP"):
        assert told in result.stdout
    assert "argument-passing heads: none of 9 prompts has a known topic" in " ".join(result.stdout.split())
    page, text = (tmp_path / "out" / f"explain-parity-layer-1.{kind}" for kind in ("html", "md"))
    assert f"wrote {page}" in result.stdout
    assert "<html" in page.read_text()
    command = (
        f"steer explain --task {task} --layer 1 --out {tmp_path / 'out'} --ridge 0.5 --prompts 9 {' '.join(model)}"
    )
    assert command in text.read_text()


def test_a_layer_that_the_model_has_not_is_refused_with_those_that_it_has(model: list[str], tmp_path: Path):
    result = steer("explain", "--task", str(write_task(tmp_path / "parity.jsonl")), "--layer", "3", *model)
    assert result.returncode == 1
    assert "layer is 3; allowed for" in result.stderr
    assert ": 0..2, or -3..-1 counted from the end" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "nope"], "task is 'nope'; known tasks:"),
        (["--ridge", "nan"], "ridge is nan; allowed: a finite number, 0 or more"),
        (["--out", "/dev/null/x"], "--out is '/dev/null/x', where nothing can be written"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_is_loaded(options: list[str], message: str):
    result = steer("explain", *options, "--model", "./nowhere/model")
    assert result.returncode == 1
    assert message in result.stderr
