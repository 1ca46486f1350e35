"""Ctrl-C while a command works: one line that says which results are saved, and exit status 130."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.builders import build_model
from tests.cli.subprocesses import STEER, steer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options that load a small model from a folder."""
    root = tmp_path_factory.mktemp("own")
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(root)
    loaded.tokenizer.save_pretrained(root)
    return "--model", str(root), "--dtype", "float32"


def interrupted(*arguments: str, when: Callable[[], bool]) -> str:
    """Interrupt a command once ``when`` returns true; return the last line of its standard error."""
    process = subprocess.Popen([STEER, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not when():
        assert process.poll() is None, "it has ended by itself"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.count("interrupted") == 1
    return errors.splitlines()[-1]


def test_an_interrupted_fit_reports_its_saved_results_and_the_same_command_continues(
    model: tuple[str, ...], tmp_path: Path
):
    checkpoint = tmp_path / ".parentheses.fit"

    def kept() -> int:
        return (
            max(0, len(checkpoint.read_text().splitlines()) - 1) if checkpoint.exists() else 0
        )  # less that of the key

    command = ("fit", "parentheses", "--method", "paper", "--out", str(tmp_path), *model)
    line = interrupted(*command, when=lambda: kept() > 2)
    before = kept()
    assert line == f"interrupted: {before} results of the fit are saved; run the same command again to continue"
    again = steer(*command)
    assert again.returncode == 0, again.stderr
    assert f"continuing an interrupted fit, of which {before} results are saved" in again.stdout


def test_a_command_without_saved_results_says_so(model: tuple[str, ...]):
    started = time.monotonic()
    line = interrupted("evaluate", "parentheses", *model, when=lambda: time.monotonic() - started > 1)
    assert line == "interrupted: no results are saved"
