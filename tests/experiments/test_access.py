"""With API keys: admins define experiments and read reports, everybody sends outcomes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.api.keyed import Keyed, keyed
from tests.experiments.asking import ARMS, BODY

ADMIN_ONLY = [
    ("POST", "", BODY),
    ("GET", "", None),
    ("GET", "/greeting", None),
    ("GET", "/greeting/report", None),
    ("PUT", "/greeting/weights", {"weights": {"control": 0.5, "warm": 0.5}}),
    *(("POST", f"/greeting/{action}", None) for action in ("start", "stop", "archive")),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keys")
    experiments = Experiments(Database(parse_database_url(sqlite_url(folder / "experiments.sqlite"))))
    with keyed(folder, experiments=experiments) as server:
        yield server


@pytest.fixture(scope="module")
def admin(server: Keyed) -> dict[str, str]:
    return server.add("ops", role="admin")


def ask(server: Keyed, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    return httpx.request(method, f"{server.url}/v1/experiments{path}", json=body, headers=headers, timeout=60)


@pytest.fixture(scope="module", autouse=True)
def running(server: Keyed, admin: dict[str, str]) -> None:
    assert ask(server, "POST", "", BODY, admin).status_code == 201
    assert ask(server, "POST", "/greeting/start", None, admin).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), ADMIN_ONLY)
def test_only_admins_define_change_and_read_experiments(server: Keyed, method: str, path: str, body: Any):
    user = server.add(f"user{method}{path.replace('/', '-')}")
    assert ask(server, method, path, body, user).status_code == 403
    assert ask(server, method, path, body, {}).status_code == 401


def test_changes_are_kept_with_the_name_of_the_key(server: Keyed, admin: dict[str, str]):
    changes = ask(server, "GET", "/greeting", None, admin).json()["changes"]
    assert [(change["action"], change["by"]) for change in changes] == [("create", "ops"), ("start", "ops")]


def test_every_key_sends_outcomes_of_its_exposures(server: Keyed):
    user = server.add("app")
    exposure = server.complete(user, user="someone").json()["exposure"]["id"]
    body = {"outcomes": [{"exposure": exposure, "value": True}]}
    assert ask(server, "POST", "/greeting/outcomes", body, {}).status_code == 401
    assert ask(server, "POST", "/greeting/outcomes", body, user).json()["stored"] == 1


def test_a_key_that_may_not_use_every_arm_takes_no_part(server: Keyed, admin: dict[str, str]):
    limited = server.add("limited", profiles=("final",))
    for number in range(8):
        answer = server.complete(limited, user=f"user-{number}")
        assert answer.status_code == 200
        assert "exposure" not in answer.json()
    named = server.complete(limited, user="someone", experiment="greeting")
    assert named.status_code == 403
    assert "may not use the profile heads" in named.json()["error"]["message"]
    assert {arm["name"] for arm in ARMS} >= {server.complete(admin, user="x").json()["exposure"]["arm"]}


def test_the_log_and_the_errors_do_not_show_the_database_s_password(tmp_path: Path):
    database = Database(parse_database_url("postgresql://steering:hunter2@127.0.0.1:1/x?connect_timeout=1"))
    with keyed(tmp_path, experiments=Experiments(database)) as server:
        admin = server.add("ops", role="admin")
        for method, path, body in ADMIN_ONLY[:3]:
            response = ask(server, method, path, body, admin)
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "database_unavailable"
            assert "hunter2" not in response.text
        assert server.complete(admin, user="someone").status_code == 200
