"""Ctrl-C while a command works: one line that says which results are saved, and exit status 130."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cli.subprocesses import Forked, started, steer

SEARCH = {"k": (1, 2, 3), "alpha": (1.5, 2, 3)}
"""Options of a search that goes on for some seconds after its first results."""


@pytest.fixture
def model(folder: Path) -> tuple[str, ...]:
    """Options that load the small model."""
    return "--model", str(folder / "own-model"), "--dtype", "float32"


def interrupted(*arguments: str, when: Callable[[Forked], bool]) -> str:
    """Interrupt a command once ``when`` returns true for its process; return the last line of its standard error."""
    with started(*arguments) as process:
        while not when(process):
            assert process.poll() is None, "it has ended by itself"
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        errors = process.written("stderr")
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

    search = [f"--{option}={value}" for option, values in SEARCH.items() for value in values]
    command = ("fit", "parentheses", "--method", "paper", *search, "--out", str(tmp_path), *model)
    line = interrupted(*command, when=lambda _: kept() > 2)
    before = kept()
    assert line == f"interrupted: {before} results of the fit are saved; run the same command again to continue"
    again = steer(*command)
    assert again.returncode == 0, again.stderr
    assert f"continuing an interrupted fit, of which {before} results are saved" in again.stdout


def test_a_command_without_saved_results_says_so(model: tuple[str, ...], folder: Path):
    command = ("evaluate", "strong", "--task", "parentheses", "--profiles", str(folder / "profiles"), *model)
    line = interrupted(*command, when=lambda process: seconds_of_work(process) > 0.5)
    assert line == "interrupted: no results are saved"


def seconds_of_work(process: Forked) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system
