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

from steering_profiles.schema import Provenance
from steering_profiles.store import save_profile
from steering_server.cli.listening import listen
from tests.cli.subprocesses import STEER, installed_steer, steer, steer_and_tell
from tests.library.examples import example
from tests.quantised import rewrite_config
from tests.serving import wait_until_ready


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
    command = "steer fit parentheses --out steering_profiles/shipped --max-lost 2.0"
    assert shown["provenance"]["command"] == f"{command} --conditions --in-turn --margin 2.0"


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
    result = installed_steer("evaluate", "nope")
    assert result.returncode == 1
    assert result.stderr == "error: no profile named 'nope'; known profiles: factual-recall, parentheses\n"


def test_every_write_is_sent_at_once():
    """Nagle's algorithm would hold a token back until the one before has been acknowledged, up to 40 ms later."""
    listener = listen("127.0.0.1", 0)
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
