"""Both distributions as `make wheel` builds them in dist/, each in an environment that has nothing else."""

import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
import torch

from tests.families import build_family
from tests.packaging.test_versions import ROOT, SERVER
from tests.serving import wait_until_ready

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1800)]

PACKAGES = {
    "steering_server": {"steering_profiles": ROOT, "steering_ab": ROOT, "steering_server": ROOT / "server"},
    "steering_client": {"steering_client": ROOT / "client"},
}
"""Distribution -> package -> the folder that has it."""

REPORTS = {
    f"steering_profiles/shipped/{name}.{kind}" for name in ("parentheses", "factual-recall") for kind in ("md", "html")
}
"""Reports of the shipped profiles, which are documents and not installed."""

COMPILED = {
    "steering_server": {"steering_server/engines/local/kernels/_native.abi3.so"},
    "steering_client": set[str](),
}
"""Distribution -> the files that a C compiler makes."""


def wheel(distribution: str) -> Path:
    (path,) = (ROOT / "dist").glob(f"{distribution}-{SERVER['version']}-*.whl")
    return path


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.folder = folder

    def call(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, in a folder without the sources."""
        command = [self.folder / "bin" / program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder)

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of its programs, which succeeds, and return what it prints."""
        result = self.call(program, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def install(self, *requirements: str | Path) -> None:
        self.run("pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *requirements)


@pytest.fixture(scope="module")
def with_client(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the client."""
    environment = Environment(tmp_path_factory.mktemp("environments") / "client")
    environment.install(wheel("steering_client"))
    return environment


@pytest.fixture(scope="module")
def with_server(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the server, but without extras and the client."""
    environment = Environment(tmp_path_factory.mktemp("environments") / "server")
    environment.install(wheel("steering_server"))
    return environment


@pytest.mark.parametrize("distribution", PACKAGES)
def test_a_wheel_has_the_files_of_its_packages_and_no_others(distribution: str):
    with ZipFile(wheel(distribution)) as archive:
        contents = {file for file in archive.namelist() if ".dist-info/" not in file}
        licence = archive.read(f"{distribution}-{SERVER['version']}.dist-info/licenses/LICENSE")
    files: set[str] = set()
    for package, folder in PACKAGES[distribution].items():
        command = ["git", "ls-files", package]
        files.update(
            subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout.splitlines()
        )
    assert contents == files - REPORTS | COMPILED[distribution]
    assert licence == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("distribution", PACKAGES)
def test_a_source_archive_has_the_packages_that_its_wheel_has(distribution: str):
    (path,) = (ROOT / "dist").glob(f"{distribution}-{SERVER['version']}.tar.gz")
    with tarfile.open(path) as archive:
        found = {Path(name).parent.name for name in archive.getnames() if name.endswith("/py.typed")}
    assert found == set(PACKAGES[distribution])


def test_the_client_is_used_without_torch(with_client: Environment):
    installed = {line.split("==")[0].split(" ")[0] for line in with_client.run("pip", "freeze").splitlines()}
    assert {"steering-client", "httpx", "httpx-sse", "pydantic"} <= installed
    assert not {"steering-server", "torch", "transformers", "numpy"} & installed
    use = "import steering_client; steering_client.SteeringClient().close(); print(steering_client.__file__)"
    assert str(with_client.folder) in with_client.run("python", "-c", use)


def test_the_server_has_its_version_and_its_profiles(with_server: Environment):
    assert with_server.run("steer", "--version") == f"steer {SERVER['version']}\n"
    use = "from steering_profiles import find_profile; print(len(find_profile('parentheses').heads))"
    assert int(with_server.run("python", "-c", use)) > 0
    assert "factual-recall" in with_server.run("steer", "profiles")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that the compiled kernels can compute."""
    folder = tmp_path_factory.mktemp("model")
    loaded = build_family("llama", dtype=torch.float32)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def answered(steer: Path, model: Path, **variables: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Serve a model with an installed command; return the model's card and a completion."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    url, environment = f"http://127.0.0.1:{port}", os.environ | variables
    with subprocess.Popen([steer, "serve", "--model", model, "--port", port], cwd=model, env=environment) as process:
        try:
            wait_until_ready(url, process)
            (card,) = httpx.get(f"{url}/v1/models").json()["data"]
            body = {"prompt": "f(x)", "max_tokens": 4, "temperature": 0}
            completion = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
        finally:
            process.terminate()
    assert process.returncode == 0
    return card, completion


def test_the_server_serves_without_extras_with_its_compiled_kernels(with_server: Environment, model: Path):
    card, completion = answered(with_server.folder / "bin" / "steer", model)
    assert card["batch_invariant"], card
    assert completion["usage"]["completion_tokens"] == 4


def test_a_source_archive_built_without_a_compiler_gives_a_server_without_the_kernels(
    with_server: Environment, model: Path, tmp_path: Path
):
    (archive,) = (ROOT / "dist").glob(f"steering_server-{SERVER['version']}.tar.gz")
    command = [with_server.folder / "bin" / "pip", "install", "--no-deps", "--target", tmp_path, archive]
    built = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"CC": "/nowhere/cc"}, cwd=with_server.folder
    )
    assert built.returncode == 0, built.stderr
    assert not list(tmp_path.rglob("*.so"))
    card, completion = answered(tmp_path / "bin" / "steer", model, PYTHONPATH=str(tmp_path))
    assert not card["batch_invariant"]
    assert "install a C compiler" in card["batch_invariant_reason"]
    assert completion["usage"]["completion_tokens"] == 4


def test_compare_asks_for_the_client_until_it_is_installed(with_server: Environment):
    compare = ("steer", "compare", "x", "--url", "http://127.0.0.1:1")
    assert "pip install steering-client" in with_server.call(*compare).stderr
    with_server.install(wheel("steering_client"))
    assert "cannot reach http://127.0.0.1:1" in with_server.call(*compare).stderr
