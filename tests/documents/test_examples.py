"""Every example of the documents is run, or listed with the reason why not."""

import contextlib
import functools
import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.families import olmo2
from steering_profiles.tasks.jsonl import Line
from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.documents import commands
from tests.documents.reading import DOCUMENTS, ROOT, Block, all_blocks, blocks, inline_code
from tests.serving import serving, wait_until_ready

STEER = str(Path(sys.executable).with_name("steer"))

SERVER = "http://127.0.0.1:8000"
"""The server's address in the documents."""

NOT_RUN = {
    "README.md sh 0": "make serve and make test: continuous integration runs the latter, which runs this",
    "docs/deployment.md sh 0": "needs a container engine; make test-container builds and runs the image without one",
    "docs/deployment.md sh 1": "needs a container engine",
    "docs/deployment.md sh 2": "needs a container engine and a registry",
    "docs/deployment.md sh 3": "needs a container engine and a GPU",
    "docs/deployment.md sh 5": "needs a cluster",
    "docs/experiments.md sh 1": "needs a running server; tests/cli/test_experiments.py runs these commands",
    "docs/experiments.md sh 2": "needs a PostgreSQL; tests/experiments starts one",
    "docs/monitoring.md sh 0": "needs a container engine; tests/observability runs Prometheus on the same files",
    "docs/gemma.md sh 0": "needs a model that is not at hand",
    "docs/quantised.md sh 0": "needs a quantised checkpoint; tests/library/test_quantised.py makes and loads some",
    "docs/ray.md sh 0": "needs Ray; tests/ray_serve deploys the same file",
    "docs/ray.md sh 1": "needs Ray; tests/ray_serve deploys the same application",
    "docs/ray.md sh 2": "needs a cluster; tests/ray_serve compares the file with KubeRay's schema",
    "docs/vllm.md sh 0": "needs vLLM; tests/vllm runs these commands",
    "docs/vllm.md sh 1": "needs vLLM; tests/vllm runs this command",
    "docs/vllm.md sh 2": "needs vLLM; tests/vllm runs these commands",
    "docs/your-model.md sh 0": "needs models that are not at hand",
    "docs/your-model.md sh 2": "needs a model that is not at hand",
    "docs/your-model.md sh 3": "needs a model that is not at hand",
}
"""Blocks that no test runs. Their ``steer`` commands are parsed."""

SLOW = {
    "README.md sh 2",  # runs as docs/ab.md sh 0
    "README.md sh 3",
    "docs/ab.md sh 1",
    "docs/evaluation.md sh 0",
    "docs/evaluation.md sh 1",
    "docs/explaining.md sh 0",
    "docs/fitting.md sh 0",
    "docs/fitting.md sh 1",
    "docs/python-api.md python 1",
}
"""Blocks that take minutes."""

OTHER_FLAGS = {"--user", "--secret", "--build-arg", "--groups"} | {
    "--additional-config",
    "--enable-dbo",
    "--max-lora-rank",
    "--max-loras",
}
"""Options of other programs and of the benchmarks, in the text of the documents."""

VARYING = {"id", "created"}
"""Fields of an answer that differ from one run to the next."""


def marked(found: list[Block]) -> list[Any]:
    """The blocks that are run, as parameters of a test."""
    slow = (pytest.mark.slow, pytest.mark.timeout(3600))
    return [
        pytest.param(block, id=block.id, marks=slow if block.id in SLOW else ())
        for block in found
        if block.id not in NOT_RUN
    ]


@pytest.fixture(scope="module")
def url(embedded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    if embedded.dtype != torch.float32:  # bfloat16 is rounded otherwise on other CPUs, so the documents show float32
        embedded = load_model(ModelSource(dtype="float32"))
    experiments = Experiments(Database(parse_database_url(sqlite_url(folder / "experiments.sqlite"))))
    with serving(embedded, folder, shipped=True, experiments=experiments) as address:
        yield address


def _workplace(folder: Path) -> Path:
    """Put into ``folder`` what a checkout has, as far as examples need it."""
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(_workplace(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_blocks_have_a_language_that_a_test_knows():
    known = {block.id for block in all_blocks("sh", "python", "json", "text", "yaml")}
    assert {block.id for document in DOCUMENTS for block in blocks(document)} == known


@pytest.mark.parametrize("block", [pytest.param(block, id=block.id) for block in all_blocks("yaml")])
def test_yaml_is_part_of_the_configuration_of_prometheus(block: Block):
    shown, own = (
        yaml.safe_load(text) for text in (block.code, (ROOT / "docker/prometheus/prometheus.yaml").read_text())
    )
    assert shown.keys() <= own.keys()
    assert shown["scrape_configs"][0]["job_name"] == own["scrape_configs"][0]["job_name"]


def test_the_listed_blocks_exist():
    there = {block.id for block in all_blocks("sh", "python")}
    assert set(NOT_RUN) | SLOW <= there
    assert not set(NOT_RUN) & SLOW


@pytest.mark.parametrize("block", [pytest.param(block, id=block.id) for block in all_blocks("sh")])
def test_commands_have_options_and_values_that_are_allowed(block: Block):
    for words in [] if "curl" in block.code else block.commands:
        arguments = commands.arguments_of(words)
        if arguments is not None:
            commands.parse(arguments)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_in_the_text_exist(document: str):
    for text in inline_code(document):
        named = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", text))
        command = re.match(r"(?:\.venv/bin/)?steer ([a-z]+)", text)
        if command is not None:
            assert named <= commands.flags(command[1]), text
        elif text.startswith("--"):
            assert named <= commands.all_flags() | OTHER_FLAGS, text


@pytest.mark.parametrize("block", marked(all_blocks("sh")))
def test_shell_examples_print_what_they_show(
    block: Block, workplace: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
):
    printed = ""
    if "curl" in block.code:
        address = request.getfixturevalue("url")
        printed = _bash(block.code.replace(SERVER, address))
        assert "data: [DONE]" in printed if "-sN" in block.code else json.loads(printed)
    else:
        for words in block.commands:
            arguments = commands.arguments_of(words)
            assert arguments is not None, words
            if arguments[0] == "serve":
                _serve(words)
            else:
                commands.run(arguments)
        printed = capsys.readouterr().out
    if block.output is not None and block.output.language == "json":
        _assert_part(json.loads(block.output.code), json.loads(printed))
    elif block.output is not None:
        shown = _without_layout(block.output.code)
        assert _without_layout(printed)[: len(shown)] == shown


class PythonExamples:
    """The Python examples of one document, run one after the other, as each may use what earlier ones have made."""

    def __init__(self, document: str, folder: Path) -> None:
        self.folder = _workplace(folder)
        self._blocks = [block for block in blocks(document) if block.language == "python"]
        self._namespace: dict[str, Any] = {}
        self._printed: list[str] = []

    def printed_by(self, block: Block, url: Callable[[], str]) -> str:
        """Return what ``block`` prints, after those before it, with the server at ``url``."""
        for each in self._blocks[len(self._printed) :]:
            if each.number > block.number:
                break
            code = each.code.replace(SERVER, url()) if SERVER in each.code else each.code
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, self._namespace)
            self._printed.append(printed.getvalue())
        return self._printed[self._blocks.index(block)]


@pytest.fixture(scope="module")
def python_examples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PythonExamples]:
    return functools.cache(lambda document: PythonExamples(document, tmp_path_factory.mktemp("examples")))


@pytest.mark.parametrize("block", marked(all_blocks("python")))
def test_python_examples_print_what_they_show(
    block: Block,
    python_examples: Callable[[str], PythonExamples],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    examples = python_examples(block.document)
    monkeypatch.chdir(examples.folder)
    printed = examples.printed_by(block, lambda: request.getfixturevalue("url"))
    if block.output is not None:
        assert printed == block.output.code


def test_json_without_a_command_is_a_line_of_a_task():
    outputs = {block.output.id for block in all_blocks("sh", "python") if block.output is not None}
    others = [block for block in all_blocks("json") if block.id not in outputs]
    assert [block.document for block in others] == ["docs/fitting.md"]
    for block in others:
        Line.model_validate_json(block.code)


def test_the_example_of_a_family_is_its_file():
    (shown,) = [block for block in blocks("docs/families.md") if block.language == "python"]
    assert shown.code == Path(olmo2.__file__).read_text(encoding="utf-8")


def _bash(script: str) -> str:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def _serve(words: list[str]) -> None:
    """Start the server that ``words`` start, at a free port, until it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    variables = [word for word in words if word.startswith("STEER_") and not word.startswith("STEER_PORT")]
    arguments = commands.arguments_of(words) or []
    process = subprocess.Popen(["env", *variables, f"STEER_PORT={port}", STEER, *arguments])
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, seconds=200)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def _assert_part(shown: Any, answered: Any, field: str = "") -> None:
    """Assert that the shown value is part of the answer: the same fields and values, numbers to rounding."""
    if isinstance(shown, dict):
        for name, value in shown.items():
            assert name in answered, f"{field}.{name}"
            _assert_part(value, answered[name], f"{field}.{name}")
    elif isinstance(shown, list):
        assert len(shown) == len(answered), field
        for one, other in zip(shown, answered, strict=True):
            _assert_part(one, other, field)
    elif isinstance(shown, float):
        assert answered == pytest.approx(shown, abs=0.001), field
    elif field.removeprefix(".") in VARYING:
        assert type(shown) is type(answered), field
    else:
        assert shown == answered, field


def _without_layout(text: str) -> list[str]:
    """The words of a text without the frames and spaces between them, all numbers of decimals alike."""
    return re.sub(r"-?\d+\.\d+", "0.0", re.sub(r"[╭╮╰╯│─]", " ", text)).split()
