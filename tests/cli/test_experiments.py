"""``steer experiments``: what the commands print, and what they refuse in one line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from steering_client import SteeringClient
from steering_server.cli import app
from steering_server.errors import ConfigError, ServerError
from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.builders import build_model, profiles_for
from tests.serving import serving

DEFINITION = {
    "name": "greeting",
    "arms": [
        {"name": "control", "steering": "baseline", "weight": 0.5},
        {"name": "warm", "steering": "heads", "weight": 0.5},
    ],
    "outcome": {"name": "solved"},
    "guardrails": [{"metric": "latency", "max_increase": 60}],
    "salt": "salt",
}

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    experiments = Experiments(Database(parse_database_url(sqlite_url(folder / "experiments.sqlite"))))
    model = build_model("llama", dtype=torch.float32)
    with serving(model, folder / "profiles", profiles_for(model), experiments=experiments) as url:
        yield url


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["experiments", *arguments, "--url", url], catch_exceptions=False)

    return run


def test_an_experiment_from_its_definition_to_the_archive(run: Run, url: str, tmp_path: Path):
    assert run("list").output == "no experiments\n"
    file = tmp_path / "greeting.json"
    file.write_text(json.dumps(DEFINITION))
    made = run("create", str(file), "--start").output
    assert "greeting is running; its least effect needs" in made
    assert "too few units yet" in run("report", "greeting").output
    with SteeringClient(url) as client:
        outcomes = []
        for number in range(40):
            answer = client.complete("x", max_tokens=1, user=f"user-{number}", experiment="greeting")
            assert answer.exposure is not None
            outcomes.append({"exposure": answer.exposure.id, "value": answer.exposure.arm == "warm"})
        client.experiments.add_outcomes("greeting", outcomes)
    listed = run("list", "--state", "running").output
    assert "control 50%, warm 50%" in listed
    report = run("report", "greeting").output
    for shown in (
        "greeting on tiny-llama: running",
        "100.0%",
        "warm - control: +100.0 points",
        "always-valid",
        "better",
        "more units needed",
        "guardrail latency in warm",
    ):
        assert shown in report, report
    assert json.loads(run("report", "greeting", "--json").output)["comparisons"][0]["verdict"] == "better"
    assert "control 10.0%, warm 90.0%" in run("weights", "greeting", "control=0.1", "warm=0.9").output
    assert "greeting is stopped" in run("stop", "greeting").output
    assert "greeting is running" in run("start", "greeting").output
    assert "greeting is stopped" in run("stop", "greeting").output
    assert "greeting is archived" in run("archive", "greeting").output
    shown = run("show", "greeting").output
    assert [line.split()[6] for line in shown.splitlines() if line.startswith("│")] == [
        "create", "start", "weights", "stop", "start", "stop", "archive",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "nothing"), "there is no experiment named nothing"),
        (("start", "a b"), "there is no experiment named a b"),
        (("list", "--state", "paused"), r"state: must be 'draft', 'running', 'stopped' or 'archived'"),
    ],
)
def test_what_the_server_refuses_is_one_line(run: Run, arguments: tuple[str, ...], message: str):
    with pytest.raises(ServerError, match=message):
        run(*arguments)


def test_weights_and_files_that_cannot_be_read_are_named(run: Run, tmp_path: Path):
    for given in ("control", "control=", "=0.5", "control=half"):
        with pytest.raises(ConfigError, match="it must be ARM=WEIGHT, such as control"):
            run("weights", "greeting", given)
    file = tmp_path / "x.json"
    for content, message in (("{", "cannot be read as JSON"), ("[]", "must hold a JSON object")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            run("create", str(file))
    file.write_text("{}")
    with pytest.raises(ServerError, match="name: "):
        run("create", str(file))


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ServerError, match="cannot reach http"):
        CliRunner().invoke(app, ["experiments", "list", "--url", "http://127.0.0.1:9"], catch_exceptions=False)
