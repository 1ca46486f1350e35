"""The command ``steer``, run as a user runs it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import torch

from steering_profiles.schema import Provenance
from steering_profiles.store import load_profile, save_profile
from steering_server.cli.commands.serve import _listen
from steering_server.config import load_settings
from tests.builders import build_model, build_profile
from tests.cli.subprocesses import STEER, steer, steer_and_tell
from tests.library.examples import example
from tests.quantised import rewrite_config
from tests.serving import wait_until_ready


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model and a folder of profiles for it."""
    root = tmp_path_factory.mktemp("own")
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(root / "own-model")
    loaded.tokenizer.save_pretrained(root / "own-model")
    save_profile(build_profile(loaded, "strong", heads=[(0, 1, 4.0), (1, 2, -2.0), (2, 0, 3.0)]), root / "profiles")
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [STEER, "serve", "--model", str(folder / "own-model"), "--profiles", str(folder / "profiles")],
        env=os.environ | {"STEER_PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    wait_until_ready(url, process)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["asked for", "with no arguments"])
def test_help_is_quick_and_names_every_command(arguments: list[str]):
    result, loaded = steer_and_tell(*arguments)
    assert result.returncode == 0
    assert not loaded
    for command in ("serve", "compare", "fit", "evaluate", "explain", "export", "profiles", "reproduce"):
        assert re.search(rf"\b{command}\b", result.stdout)


def test_the_version_is_that_of_the_package():
    result = steer("--version")
    assert result.returncode == 0
    assert result.stdout == f"steer {version('steering-server')}\n"


def test_profiles_lists_the_shipped_profile_and_prints_its_content():
    assert "parentheses" in steer("profiles").stdout
    shown = json.loads(steer("profiles", "parentheses").stdout)
    assert shown["provenance"]["command"] == "steer fit parentheses --out steering_profiles/shipped"


def test_serve_accepts_a_users_model_and_profiles(server: str):
    assert httpx.get(f"{server}/ready").json()["model"] == "own-model"
    models = [model["id"] for model in httpx.get(f"{server}/v1/models").json()["data"]]
    assert models == ["own-model", "own-model+strong"]


def test_compare_prints_both_texts_and_where_they_diverge_by_url_and_in_process(server: str, folder: Path):
    arguments = ["compare", r"print(str(1\n", "--arms", "baseline,strong", "--max-tokens", "6"]
    remote = steer(*arguments, "--url", server)
    own = steer(*arguments, "--model", str(folder / "own-model"), "--profiles", str(folder / "profiles"))
    assert remote.returncode == own.returncode == 0, own.stderr
    assert "diverge at token" in remote.stdout
    assert remote.stdout == own.stdout


def test_fit_writes_a_profile_that_evaluate_measures(folder: Path, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    search = ["--method", "paper", "--k", "1", "--alpha", "2"]
    fitted = steer("fit", "parentheses", "--out", str(tmp_path), "--name", "mine", *search, *model)
    assert fitted.returncode == 0, fitted.stderr
    profile = load_profile(tmp_path / "mine.json")
    assert profile.provenance is not None
    assert "--name mine" in profile.provenance.command
    assert "<html" in (tmp_path / "mine.html").read_text()
    assert "parentheses" in (tmp_path / "mine.md").read_text()
    assert not list(tmp_path.glob(".*"))  # the checkpoint of a fit that is done is gone
    figures = tmp_path / "figures.json"
    measured = steer("evaluate", str(tmp_path / "mine.json"), *model, "--no-side-effects", "--json", str(figures))
    assert measured.returncode == 0, measured.stderr
    record = json.loads(figures.read_text())
    assert record["accuracy"]["test"]["with"] == profile.provenance.test["after"]
    assert "side_effects" not in record


def test_a_fit_that_finds_nothing_writes_a_report_and_no_profile(folder: Path, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task = write_task(tmp_path / "parity.jsonl")
    fitted = steer("fit", "--task", str(task), "--out", str(tmp_path / "out"), *model)
    assert fitted.returncode == 0, fitted.stderr
    assert "no profile is written" in fitted.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["parity.html", "parity.md"]
    (tmp_path / "out" / "parity.json").write_text("{}")
    again = steer("fit", "--task", str(task), "--out", str(tmp_path / "out"), *model)
    assert "is of an earlier fit" in " ".join(again.stdout.split())
    assert (tmp_path / "out" / "parity.json").read_text() == "{}"


def write_task(path: Path, lines: int = 30) -> Path:
    """A task file whose answers are single characters, with two unusable lines."""
    asked = [
        {"prompt": f"{index} is {'even' if index % 2 == 0 else 'odd'}: ", "answer": "yn"[index % 2]}
        for index in range(lines)
    ]
    unusable = ['{"prompt": "a", "answer": "two tokens"}', "not json"]
    path.write_text("\n".join([*map(json.dumps, asked), *unusable]) + "\n")
    return path


def test_a_users_task_is_a_file_of_prompts_and_answers(folder: Path, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task = write_task(tmp_path / "parity.jsonl")
    search = ["--method", "paper", "--k", "1", "--alpha", "2"]
    fitted = steer("fit", "--task", str(task), "--out", str(tmp_path / "out"), *search, *model)
    assert fitted.returncode == 0, fitted.stderr
    assert "line 31: answer 'two tokens' is" in " ".join(fitted.stdout.split())
    assert "line 32:" in fitted.stdout
    profile = load_profile(tmp_path / "out" / "parity.json")
    assert profile.provenance is not None
    assert profile.provenance.task == "parity"
    assert f"--task {task}" in profile.provenance.command
    measured = steer(
        "evaluate", str(tmp_path / "out" / "parity.json"), "--task", str(task), "--no-side-effects", *model
    )
    assert measured.returncode == 0, measured.stderr


def test_fit_compares_methods_in_its_report(folder: Path, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task = write_task(tmp_path / "parity.jsonl")
    search = ["--k", "2", "--alpha", "1.5", "--compare"]
    fitted = steer("fit", "--task", str(task), "--out", str(tmp_path / "out"), *search, *model)
    assert fitted.returncode == 0, fitted.stderr
    report = (tmp_path / "out" / "parity.md").read_text()
    for method in ("stepwise", "paper", "random"):
        assert method in report


def test_the_final_layer_is_fitted_to_a_users_task_and_its_calibration_is_printed(folder: Path, tmp_path: Path):
    model = ["--model", str(folder / "own-model"), "--dtype", "float32"]
    task, out = write_task(tmp_path / "parity.jsonl", 60), tmp_path / "out"
    search = ["--method", "final-layer", "--self-only-attention", "1", "--lambda", "-2", "--lambda", "2"]
    fitted = steer("fit", "--task", str(task), "--out", str(out), *search, "--intercept", "mean", *model)
    assert fitted.returncode == 0, fitted.stderr
    profile = load_profile(out / "parity.json")
    assert profile.method == "final-layer"
    assert profile.provenance is not None
    assert "--method final-layer --self-only-attention 1.0 --lambda -2.0 --lambda 2.0 --intercept mean" in (
        profile.provenance.command
    )
    assert len(profile.provenance.grid["points"]) == 6
    for shown in (" ".join(fitted.stdout.split()), (out / "parity.md").read_text()):
        for arm in ("baseline", "profile", "temperature"):
            assert arm in shown
        assert "Mean P(correct)" in shown
    measured = steer(
        *("evaluate", str(out / "parity.json"), "--task", str(task), "--calibration", "--no-side-effects", *model),
        *("--json", str(tmp_path / "figures.json"), "--report", str(tmp_path / "report")),
    )
    assert measured.returncode == 0, measured.stderr
    assert "By NLL, the" in measured.stdout
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
    assert set(record["side_effects"]["prose"]) == {"tokens", "nll_before", "nll_after", "agreement"}
    assert [flag.split()[0] for flag in record["flags"]], "three heads scaled so far harm any text"
    assert f"NLL increase above the limit of +1.0%: {record['flags'][0]}" in measured.stdout
    test = record["accuracy"]["test"]
    for arm in ("without", "with"):
        low, high = test["all"]["intervals"][arm]
        assert low <= test["all"][arm] <= high
        assert set(test["intervals"][arm]) == set(test[arm])


def test_profiles_names_the_texts_that_a_profile_makes_worse(tmp_path: Path):
    quiet, loud = ({"nll_before": 2.0, "nll_after": after, "tokens": 9, "agreement": 0.9} for after in (2.01, 2.1))
    for name, side_effects in {
        "unknown": {},
        "quiet": {"prose": quiet},
        "loud": {"prose": quiet, "code": loud},
    }.items():
        provenance = Provenance(tool_version="0", command="steer fit", task="t", seed=0, side_effects=side_effects)
        save_profile(example(name=name, provenance=provenance), tmp_path)
    lines = steer("profiles", "--profiles", str(tmp_path)).stdout.splitlines()
    shown = {name: next(line for line in lines if f" {name} " in line) for name in ("unknown", "quiet", "loud")}
    assert "not measured" in shown["unknown"]
    assert "within +1.0%" in shown["quiet"]
    assert "code +5.0%" in shown["loud"]
    assert "prose" not in shown["loud"]


def test_commands_other_than_compare_need_no_client():
    assert steer_and_tell("profiles", without=["steering_client"])[0].returncode == 0
    result, _ = steer_and_tell("compare", "x", without=["steering_client"])
    assert result.returncode == 1
    assert result.stderr.startswith("error: steer compare needs the package steering-client")
    assert "pip install ./client" in result.stderr


def test_the_installed_command_prints_the_same():
    result = steer("evaluate", "nope")
    assert result.returncode == 1
    assert result.stderr == "error: no profile named 'nope'; known profiles: factual-recall, parentheses\n"


def test_every_write_is_sent_at_once():
    """Nagle's algorithm would hold a token back until the one before has been acknowledged, up to 40 ms later."""
    listener = _listen(load_settings(port=0))
    assert listener.proto == socket.IPPROTO_TCP, "asyncio turns it off for sockets that say they are TCP"
    listener.close()


@pytest.mark.parametrize("end", ["/", "/v1", "/v1/"])
def test_the_url_of_a_server_may_have_the_forms_that_other_clients_accept(server: str, end: str):
    result = steer("compare", "x", "--arms", "baseline,strong", "--max-tokens", "2", "--url", f"{server}{end}")
    assert result.returncode == 0, result.stderr


def test_an_arm_that_does_not_exist_is_named(server: str):
    result = steer("compare", "x", "--arms", "baseline,nope", "--url", server)
    assert result.returncode == 1
    assert "no profile named nope" in result.stderr


@pytest.mark.parametrize(
    ("method", "says"), [("aqlm", "pip install aqlm[cpu]"), ("eetq", "needs a GPU, and there is none here")]
)
def test_quantised_weights_that_cannot_run_here_are_an_error_of_one_line(
    folder: Path, tmp_path: Path, method: str, says: str
):
    shutil.copytree(folder / "own-model", tmp_path / "quantised")
    rewrite_config(tmp_path / "quantised", quantization_config={"quant_method": method})
    result = steer("serve", "--model", str(tmp_path / "quantised"), "--port", "0", COLUMNS="1000")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: cannot load model")
    assert says in result.stderr
