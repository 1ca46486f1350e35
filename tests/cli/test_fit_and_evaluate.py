"""``steer fit`` and ``steer evaluate`` on a small model: their output, files and reports."""

import json
from pathlib import Path

import pytest

from steering_profiles.fit_settings import StepwiseSettings
from steering_profiles.store import load_profile
from steering_server.cli.fit_components import components_settings
from steering_server.cli.fit_options import ComponentOptions
from tests.cli.conftest import Steer
from tests.cli.subprocesses import steer
from tests.cli.tasks import write_task


def test_fit_writes_a_profile_that_evaluate_measures(folder: Path, small: Steer, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    search = ["--method", "paper", "--k", "1", "--alpha", "2"]
    fitted = small("fit", "parentheses", "--out", str(tmp_path), "--name", "mine", *search, *model)
    assert fitted.exit_code == 0, fitted.output
    profile = load_profile(tmp_path / "mine.json")
    assert profile.provenance is not None
    assert "--name mine" in profile.provenance.command
    assert "<html" in (tmp_path / "mine.html").read_text()
    assert "parentheses" in (tmp_path / "mine.md").read_text()
    assert not list(tmp_path.glob(".*"))  # the checkpoint of a fit that is done is gone
    figures = tmp_path / "figures.json"
    measured = small("evaluate", str(tmp_path / "mine.json"), *model, "--no-side-effects", "--json", str(figures))
    assert measured.exit_code == 0, measured.output
    record = json.loads(figures.read_text())
    assert record["accuracy"]["test"]["with"] == profile.provenance.test["after"]
    assert "side_effects" not in record


def test_options_of_the_stepwise_search_are_its_settings():
    given = ComponentOptions(max_components=7, max_scale=1.25, max_lost=3.0, conditions=True, in_turn=True, margin=2.5)
    assert components_settings("stepwise", given).stepwise == StepwiseSettings(
        max_components=7, max_scale=1.25, max_lost=3.0, conditions=True, in_turn=True, margin=2.5
    )
    assert components_settings("stepwise", ComponentOptions()).stepwise == StepwiseSettings()


def test_fit_says_what_the_limit_of_losses_refused(folder: Path, small: Steer, tmp_path: Path):
    """On random weights hardly anything is right; a search that gains something and loses nothing is in fitting."""
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    limits = ["--max-lost", "0", "--conditions", "--max-components", "2"]
    fitted = small("fit", "parentheses", "--out", str(tmp_path), *limits, *model)
    assert fitted.exit_code == 0, fitted.output
    page = (tmp_path / "parentheses.md").read_text()
    assert "may lose more than 0 points" in page
    assert "--max-lost 0 --conditions" in page.replace("0.0", "0")


def test_a_fit_that_finds_nothing_writes_a_report_and_no_profile(folder: Path, small: Steer, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task = write_task(tmp_path / "parity.jsonl")
    fitted = small("fit", "--task", str(task), "--out", str(tmp_path / "out"), *model)
    assert fitted.exit_code == 0, fitted.output
    assert "no profile is written" in fitted.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["parity.html", "parity.md"]
    (tmp_path / "out" / "parity.json").write_text("{}")
    again = small("fit", "--task", str(task), "--out", str(tmp_path / "out"), *model)
    assert "is of an earlier fit" in " ".join(again.output.split())
    assert (tmp_path / "out" / "parity.json").read_text() == "{}"


def test_a_users_task_is_a_file_of_prompts_and_answers(folder: Path, small: Steer, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task = write_task(tmp_path / "parity.jsonl")
    search = ["--method", "paper", "--k", "1", "--alpha", "2"]
    fitted = small("fit", "--task", str(task), "--out", str(tmp_path / "out"), *search, *model)
    assert fitted.exit_code == 0, fitted.output
    assert "line 31: answer 'two tokens' is" in " ".join(fitted.output.split())
    assert "line 32:" in fitted.output
    profile = load_profile(tmp_path / "out" / "parity.json")
    assert profile.provenance is not None
    assert profile.provenance.task == "parity"
    assert f"--task {task}" in profile.provenance.command
    measured = small(
        "evaluate", str(tmp_path / "out" / "parity.json"), "--task", str(task), "--no-side-effects", *model
    )
    assert measured.exit_code == 0, measured.output


def test_fit_compares_methods_in_its_report(folder: Path, small: Steer, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task = write_task(tmp_path / "parity.jsonl")
    search = ["--k", "2", "--alpha", "1.5", "--compare"]
    fitted = small("fit", "--task", str(task), "--out", str(tmp_path / "out"), *search, *model)
    assert fitted.exit_code == 0, fitted.output
    report = (tmp_path / "out" / "parity.md").read_text()
    for method in ("stepwise", "paper", "random"):
        assert method in report


def test_the_final_layer_is_fitted_to_a_users_task_and_its_calibration_is_printed(
    folder: Path, small: Steer, tmp_path: Path
):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task, out = write_task(tmp_path / "parity.jsonl", 60), tmp_path / "out"
    search = ["--method", "final-layer", "--self-only-attention", "1", "--lambda", "-2", "--lambda", "2"]
    fitted = small("fit", "--task", str(task), "--out", str(out), *search, "--intercept", "mean", *model)
    assert fitted.exit_code == 0, fitted.output
    profile = load_profile(out / "parity.json")
    assert profile.method == "final-layer"
    assert profile.provenance is not None
    assert "--method final-layer --self-only-attention 1.0 --lambda -2.0 --lambda 2.0 --intercept mean" in (
        profile.provenance.command
    )
    assert (
        len(profile.provenance.grid["points"]) == 1 + 2 * 5
    )  # the plain model, and the others at two sets of positions
    for shown in (" ".join(fitted.output.split()), (out / "parity.md").read_text()):
        for arm in ("baseline", "profile", "temperature"):
            assert arm in shown
        assert "Mean P(correct)" in shown
    measured = small(
        *("evaluate", str(out / "parity.json"), "--task", str(task), "--calibration", "--no-side-effects", *model),
        *("--json", str(tmp_path / "figures.json"), "--report", str(tmp_path / "report")),
    )
    assert measured.exit_code == 0, measured.output
    assert "By NLL, the" in measured.output
    assert "With the temperature that dev prefers on both sides" in " ".join(measured.output.split())
    figures = json.loads((tmp_path / "figures.json").read_text())["calibration"]["test"]
    recorded = profile.provenance.test["after: calibration"]
    assert figures["profile"]["every"]["pooled"]["nll"] == pytest.approx(recorded["nll"], abs=1e-4)
    assert "reliability" in (tmp_path / "report" / "parity.html").read_text()


def test_evaluate_measures_side_effects(folder: Path, tmp_path: Path):
    figures = tmp_path / "figures.json"
    own = ["--model", str(folder / "own-model"), "--profiles", str(folder / "profiles"), "--dtype", "float32"]
    measured = steer("evaluate", "strong", "--task", "parentheses", *own, "--json", str(figures))
    assert measured.returncode == 0, measured.stderr
    record = json.loads(figures.read_text())
    assert {"prose", "code"} <= set(record["side_effects"])
    assert set(record["side_effects"]["prose"]) == {
        "tokens", "nll_before", "nll_after", "agreement", "interval", "correct_before", "correct_after",
        "correct_interval", "divergence", "divergence_interval",
    }  # fmt: skip
    words, pairs = record["side_effects"]["last words"], record["side_effects"]["minimal pairs"]
    assert words["kind"] == "last words"
    assert words["words"] > 20
    assert pairs["pairs"] == sum(one["pairs"] for one in pairs["phenomena"].values())
    assert set(pairs["phenomena"]["articles"]) == {
        "pairs", "correct_before", "correct_after", "correct_interval", "margin_before", "margin_after",
        "margin_interval",
    }  # fmt: skip
    low, high = record["side_effects"]["prose"]["interval"]
    change = record["side_effects"]["prose"]
    assert low < change["nll_after"] / change["nll_before"] - 1 < high
    assert [flag.split()[0] for flag in record["flags"]], "three heads scaled so far harm any text"
    assert f"NLL increase above the limit of +1.0%: {record['flags'][0]}" in measured.stdout
    test = record["accuracy"]["test"]
    for arm in ("without", "with"):
        low, high = test["all"]["intervals"][arm]
        assert low <= test["all"][arm] <= high
        assert set(test["intervals"][arm]) == set(test[arm])


def test_whole_answers_are_fitted_and_measured_like_single_tokens(folder: Path, small: Steer, tmp_path: Path):
    """The task is found again by its name, or as a file by the file."""
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    search = ["--method", "paper", "--k", "1", "--alpha", "2"]
    fitted = small("fit", "arithmetic-whole", "--out", str(tmp_path), *search, *model)
    assert fitted.exit_code == 0, fitted.output
    profile = load_profile(tmp_path / "arithmetic-whole.json")
    figures = tmp_path / "figures.json"
    own = [str(tmp_path / "arithmetic-whole.json"), *model, "--no-side-effects"]
    measured = small("evaluate", *own, "--json", str(figures))
    assert measured.exit_code == 0, measured.output
    record = json.loads(figures.read_text())
    assert record["task"] == "arithmetic-whole"
    assert profile.provenance is not None
    assert record["accuracy"]["test"]["with"] == profile.provenance.test["after"]
    refused = steer("evaluate", *own, "--calibration")
    assert refused.returncode == 1
    said = " ".join((refused.stdout + refused.stderr).split())
    assert "--calibration looks at the next token only, and task arithmetic-whole asks for whole answers" in said
