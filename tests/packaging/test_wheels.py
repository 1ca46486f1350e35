"""Both distributions as `make wheel` builds them in dist/, each in an environment that has nothing else."""

import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.builders import build_model
from tests.packaging.test_versions import ROOT, SERVER
from tests.serving import wait_until_ready

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1800)]

PACKAGES = {
    "steering_server": {"steering_profiles": ROOT, "steering_server": ROOT / "server"},
    "steering_client": {"steering_client": ROOT / "client"},
}
"""Distribution -> package -> the folder that has it."""

REPORTS = {
    f"steering_profiles/shipped/{name}.{kind}" for name in ("parentheses", "factual-recall") for kind in ("md", "html")
}
"""Reports of the shipped profiles, which are documents and not installed."""


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
    assert contents == files - REPORTS
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


def test_the_server_serves_without_extras(with_server: Environment, tmp_path: Path):
    loaded = build_model("llama")
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [with_server.folder / "bin" / "steer", "serve", "--model", tmp_path, "--port", port]
    with subprocess.Popen(command, cwd=with_server.folder) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
    assert process.returncode == 0


def test_compare_asks_for_the_client_until_it_is_installed(with_server: Environment):
    compare = ("steer", "compare", "x", "--url", "http://127.0.0.1:1")
    assert "pip install steering-client" in with_server.call(*compare).stderr
    with_server.install(wheel("steering_client"))
    assert "cannot reach http://127.0.0.1:1" in with_server.call(*compare).stderr
