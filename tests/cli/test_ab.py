"""``steer ab``: a data set in, a report and a status out."""

import json
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from steering_ab.errors import ABError
from steering_server.errors import ConfigError
from tests.cli.conftest import Steer
from tests.cli.subprocesses import started, steer_and_tell


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set of 10 items, and one line that cannot be used."""
    rows = [{"prompt": f"print(str({n}", "expected": ")", "tags": ["even" if n % 2 == 0 else "odd"]} for n in range(10)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "nope\n")
    return path


@pytest.fixture
def ab(small: Steer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steer:
    """A function that runs ``steer ab`` on a small model in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str):
        words = ["ab", *args, "--model", str(folder / "own-model"), "--profiles", str(folder / "profiles")]
        monkeypatch.setattr(sys, "argv", ["steer", *words])
        return small(*words)

    return run


def test_a_report_is_written_and_shown(ab: Steer, dataset: Path, tmp_path: Path):
    result = ab(str(dataset), "--arms", "baseline,strong", "--grader", "contains", "--max-tokens", "4")
    assert result.exit_code == 0
    assert "1 line left out: line 11: is not JSON" in result.stderr
    assert "strong − baseline" in result.stdout
    (run,) = (tmp_path / "ab-runs").iterdir()
    assert run.name.startswith("data-")
    written = {file.name for file in run.iterdir()}
    assert {"report.html", "report.md", "report.json", "items.csv", "answers.jsonl"} <= written
    record = json.loads((run / "report.json").read_text())
    assert record["settings"]["where"] == "in this process"
    assert record["about"]["command"] == shlex.join(sys.argv)
    assert record["settings"]["described"]["strong"]["profiles"]["strong"].startswith("sha256:")


def test_the_same_command_goes_on_and_grades_can_be_made_again(ab: Steer, dataset: Path, tmp_path: Path):
    arguments = (str(dataset), "--arms", "baseline,strong", "--out", str(tmp_path / "run"), "--max-tokens", "4")
    assert ab(*arguments).exit_code == 0
    answers = (tmp_path / "run" / "answers.jsonl").read_bytes()
    assert ab(*arguments).exit_code == 0
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == answers
    regraded = ab(str(dataset), "--out", str(tmp_path / "run"), "--regrade", "--grader", "length")
    assert regraded.exit_code == 0
    assert "length" in regraded.stdout
    assert json.loads((tmp_path / "run" / "report.json").read_text())["settings"]["max_tokens"] == 4
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == answers


def test_a_requirement_that_does_not_hold_is_named(ab: Steer, dataset: Path):
    arguments = (str(dataset), "--arms", "baseline,baseline", "--require", "baseline.2 - baseline > -0.5")
    assert ab(*arguments).exit_code == 0
    with pytest.raises(ABError, match=r"a requirement does not hold: baseline\.2 - baseline >= 0\.05: "):
        ab(*arguments, "--require", "baseline.2 - baseline >= 0.05")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "baseline"], "has 1; a comparison has 2..8"),
        (["--arms", "baseline,strongest"], "strongest"),
        (["--arms", "baseline,strong@x"], "the strength after @"),
        (["--require", "strong > much"], "'much' is no number"),
        (["--require", "strong - baseline > 0"], "'strong' is no arm"),
        (["--grader", "exakt"], "there is no grader 'exakt'"),
        (["--grader", "judge"], "--judge-url and --judge-model"),
        (["--judge-url", "http://127.0.0.1:1"], "needs both --judge-url and --judge-model"),
        (["--judge-key-env", "NO_SUCH_KEY"], "'NO_SUCH_KEY', an environment variable that is not set"),
        (["--strict"], "line 11: is not JSON"),
        (["--regrade"], "--regrade needs --out"),
        (["--regrade", "--out", "nothing"], "holds no run to grade again"),
        (["--repeats", "2"], "repeats is 2 at temperature 0"),
        (["--detect", "0"], "detect is 0"),
        (["--url", "http://127.0.0.1:1"], "leave out --url or those options"),
    ],
)
def test_mistakes_are_named_before_a_model_is_loaded(ab: Steer, dataset: Path, options: list[str], message: str):
    with pytest.raises(Exception, match=re.escape(message)) as caught:
        ab(str(dataset), *options)
    assert (
        isinstance(caught.value, ABError | ConfigError) or type(caught.value).__module__ == "steering_profiles.errors"
    )


def test_a_mistake_costs_no_import_of_torch(dataset: Path):
    for arguments in (("none.jsonl",), (str(dataset), "--arms", "baseline,none"), (str(dataset), "--grader", "none")):
        result, heavy = steer_and_tell("ab", *arguments)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in result.stderr
        assert not heavy


def test_without_the_client_the_command_says_what_to_install(dataset: Path):
    result, _ = steer_and_tell("ab", str(dataset), without=("steering_client",))
    assert result.returncode == 1
    assert "pip install ./client" in result.stderr


def test_an_interrupt_says_what_is_kept_and_the_run_goes_on(dataset: Path, folder: Path, tmp_path: Path):
    rows = [{"prompt": f"print(str({n}", "expected": ")"} for n in range(3000)]
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, answers = tmp_path / "run", tmp_path / "run" / "answers.jsonl"
    model = ("--model", str(folder / "own-model"), "--profiles", str(folder / "profiles"))
    arguments = ("ab", str(dataset), "--arms", "baseline,strong", "--out", str(out), "--max-tokens", "40", *model)
    with started(*arguments) as process:
        until = time.monotonic() + 100
        while time.monotonic() < until and not (answers.exists() and answers.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(100) == 130
        said = process.written("stderr")
    assert re.search(r"interrupted: [\d,]+ of 3,000 requests are answered and kept in .*; the same command", said)
    assert "Traceback" not in said
