"""The command ``steer``, run as a user runs it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
from tests.library.examples import example
from tests.quantised import rewrite_config
from tests.serving import wait_until_ready
from tests.test_imports import HEAVY

STEER = str(Path(sys.executable).with_name("steer"))


def steer(*args: str, through: Sequence[str] = (), **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*through, STEER, *args], capture_output=True, text=True, timeout=200, env=os.environ | {"COLUMNS": "120"} | env
    )


def steer_and_tell(*args: str, without: Sequence[str] = ()) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the same main function in a new interpreter; return the result and the heavy libraries that it loaded.

    The packages ``without`` are as if they were not installed.
    """
    code = f"""
import atexit, sys
sys.modules.update(dict.fromkeys({list(without)}))
atexit.register(lambda: print(*(name for name in {HEAVY} if name in sys.modules)))
sys.argv[0] = "steer"
from steering_server.cli import main
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "120"},
    )
    *_, told = result.stdout.splitlines()
    return result, told.split()


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
    assert "By NLL the" in measured.stdout
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


WRONG = {
    "no such model": (["serve", "--model", "./nowhere/model"], "'./nowhere/model' does not exist"),
    "no such profiles folder": (["serve", "--profiles", "./nowhere"], "nowhere"),
    "unknown dtype": (["serve", "--dtype", "int3"], "dtype is 'int3'"),
    "KV cache memory in no known unit": (["serve", "--kv-cache-memory", "5XB"], "kv_cache_memory is '5XB'"),
    "memory without a size": (["serve", "--max-memory", "cpu"], "DEVICE=SIZE"),
    "a device map that is no JSON": (["serve", "--device-map", "{"], "not JSON"),
    "a limit of memory that nothing looks at": (
        ["evaluate", "parentheses", "--max-memory", "cpu=1GiB"],
        "max_memory needs an automatic device map",
    ),
    "a limit of memory that is no size": (
        ["explain", "--device-map", "auto", "--max-memory", "cpu=lots"],
        "max_memory of cpu is 'lots'",
    ),
    "no such model to fit": (["fit", "parentheses", "--out", ".", "--model", "./nowhere/model"], "does not exist"),
    "no such model to look at": (["anatomy", "./nowhere.gguf"], "model file './nowhere.gguf' does not exist"),
    "no such model to compare": (["compare", "x", "--model", "./nowhere/model"], "'./nowhere/model' does not exist"),
    "unknown dtype for what is not served": (["reproduce", "--dtype", "int3"], "dtype is 'int3'"),
    "a ridge that is none": (["explain", "--ridge", "nan"], "ridge is nan; allowed: finite numbers from 0"),
    "unknown form of export": (["export", "parentheses", "--as", "gguf", "--out", "new"], "as is 'gguf'; allowed: "),
    "a profile that weights cannot carry": (
        ["export", "factual-recall", "--as", "lora", "--out", "new"],
        "cannot be exported: weights can express only scales of heads and neurons",
    ),
    "a folder to export to that is not empty": (["export", "parentheses", "--as", "lora", "--out", "."], "not empty"),
    "nowhere to write": (["fit", "parentheses", "--out", "/dev/null/x"], "a folder that cannot be written to"),
    "unknown task": (["fit", "poetry", "--out", "."], "known tasks: parentheses"),
    "no task": (["fit", "--out", "."], "neither is given"),
    "two tasks": (["fit", "parentheses", "--task", "arithmetic", "--out", "."], "'parentheses' and 'arithmetic'"),
    "no such file of prompts": (["fit", "--task", "nowhere.jsonl", "--out", "."], "nowhere.jsonl"),
    "unknown method": (["fit", "parentheses", "--out", ".", "--method", "luck"], "stepwise, paper, circuit, random"),
    "an option of another method": (
        ["fit", "parentheses", "--out", ".", "--lambda", "0.1"],
        "--lambda has no effect with method stepwise",
    ),
    "an option of the grid for a search that has none": (
        ["fit", "parentheses", "--out", ".", "--alpha", "1.5"],
        "--alpha has no effect with method stepwise",
    ),
    "an option of the stepwise search for another": (
        ["fit", "parentheses", "--out", ".", "--method", "paper", "--max-scale", "2"],
        "--max-scale has no effect with method paper",
    ),
    "an option of a method for facts": (["fit", "capitals", "--out", ".", "--k", "5"], "--k has no effect with method"),
    "attention out of range": (
        ["fit", "capitals", "--out", ".", "--self-only-attention", "2"],
        "self-only attention is 2",
    ),
    "unknown intercept": (["fit", "capitals", "--out", ".", "--intercept", "median"], "regression, mean"),
    "unknown components": (["fit", "parentheses", "--out", ".", "--components", "all"], "heads, neurons, both"),
    "a scale too small to search": (["fit", "parentheses", "--out", ".", "--max-scale", "1"], "max scale is 1"),
    "neurons by patching": (
        ["fit", "parentheses", "--out", ".", "--method", "circuit", "--components", "both"],
        "it takes no neurons",
    ),
    "a model of no published figures": (["reproduce", "BERT"], "model is 'BERT', for which the paper has no figures"),
    "unknown metric": (["fit", "parentheses", "--out", ".", "--metric", "luck"], "f1, recall, precision"),
    "a name no profile may have": (["fit", "parentheses", "--out", ".", "--name", "A+B"], "name is 'A+B'"),
    "problems for programs that are not to be run": (
        ["evaluate", "parentheses", "--humaneval-problems", "3"],
        "--run-humaneval",
    ),
    "a task whose prompts cannot be counted": (
        ["evaluate", "factual-recall", "--exhaustive"],
        "whose prompts cannot all be listed; allowed: parentheses",
    ),
    "unknown profile": (["evaluate", "nope"], "known profiles: factual-recall, parentheses"),
    "unknown profile to show": (["profiles", "nope"], "known profiles: factual-recall, parentheses"),
    "unknown profile to export": (["export", "nope", "--as", "lora", "--out", "new"], "known profiles: factual-recall"),
    "unknown profile to compare": (["compare", "x", "--arms", "baseline,parentheses+nope"], "no profile named 'nope'"),
    "a profile file that is not there": (["evaluate", "./nope.json"], "nope.json"),
    "strength out of range": (["evaluate", "parentheses", "--strength", "nan"], "-10..10"),
    "no server there": (["compare", "x", "--url", "http://127.0.0.1:1"], "cannot reach http://127.0.0.1:1"),
    "a model for a running server": (["compare", "x", "--url", "http://h", "--model", "m"], "--url asks a running"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG)
def test_an_error_is_one_line_with_exit_status_one_before_torch_is_imported(arguments: list[str], says: str):
    result, loaded = steer_and_tell(*arguments)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert says in result.stderr
    assert not loaded


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "parentheses", "--out", ".", "--nope"], "No such option: --nope"),
        (["fit", "parentheses"], "Missing option '--out'"),
        (["fit", "parentheses", "--out", ".", "--k", "many"], "Invalid value for '--k'"),
        (["serve", "--port", "70000"], "Invalid value for '--port'"),
        (["poetry"], "No such command 'poetry'"),
    ],
)
def test_a_usage_error_has_exit_status_two_before_torch_is_imported(arguments: list[str], says: str):
    result, loaded = steer_and_tell(*arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert not loaded


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


def test_too_little_memory_for_one_sequence_is_an_error_of_one_line():
    result = steer("serve", "--kv-cache-memory", "10MiB", "--port", "0")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "sequence of 8192 tokens takes 180 MiB" in line


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


def test_a_wrong_variable_is_named():
    result = steer("serve", STEER_MAX_NUM_SEQS="none")
    assert result.returncode == 1
    assert "max_num_seqs is 'none'" in result.stderr


def test_a_port_in_use_is_reported_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = steer("serve", "--port", str(taken.getsockname()[1]), "--model", "./nowhere/model")
    assert result.returncode == 1
    assert "cannot listen on 127.0.0.1 port" in result.stderr


def test_every_write_is_sent_at_once():
    """Nagle's algorithm would hold a token back until the one before has been acknowledged, up to 40 ms later."""
    listener = _listen(load_settings(port=0))
    assert listener.proto == socket.IPPROTO_TCP, "asyncio turns it off for sockets that say they are TCP"
    listener.close()


@pytest.mark.parametrize("end", ["/", "/v1", "/v1/"])
def test_the_url_of_a_server_may_have_the_forms_that_other_clients_accept(server: str, end: str):
    result = steer("compare", "x", "--arms", "baseline,strong", "--max-tokens", "2", "--url", f"{server}{end}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "", "ftp://host", "http://host:port"])
def test_an_invalid_url_is_an_error_of_one_line_that_says_what_is_expected(url: str):
    result = steer("compare", "x", "--url", url)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: base URL is '{url}'; expected is http://HOST:PORT")


def test_an_arm_that_does_not_exist_is_named(server: str):
    result = steer("compare", "x", "--arms", "baseline,nope", "--url", server)
    assert result.returncode == 1
    assert "no profile named nope" in result.stderr
