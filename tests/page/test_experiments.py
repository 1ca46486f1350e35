"""The tab Experiments: figures as in the report, over time, and starting and stopping with a key that may."""

import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch
from playwright.sync_api import Page, expect

from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.api.keyed import keyed
from tests.builders import build_model, profiles_for
from tests.page.browser import open_page
from tests.serving import serving

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
DEFINITION: dict[str, Any] = {
    "name": "closing",
    "description": HOSTILE,
    "arms": [
        {"name": "control", "steering": "baseline", "weight": 0.5},
        {"name": "steered", "steering": "heads", "weight": 0.5},
    ],
    "outcome": {"name": "accepted"},
    "guardrails": [{"metric": "errors", "max_increase": 0.5}],
    "salt": "2026",
}


@pytest.fixture
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Experiments:
    file = tmp_path_factory.mktemp("state") / "experiments.sqlite"
    return Experiments(Database(parse_database_url(sqlite_url(file))))


@pytest.fixture
def url(experiments: Experiments, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = build_model("llama", dtype=torch.float32)
    folder = tmp_path_factory.mktemp("profiles")
    with serving(model, folder, profiles_for(model), experiments=experiments) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as http:
        yield http


def run(http: httpx.Client, batches: int = 3, users: int = 24) -> dict[str, Any]:
    """Run an experiment in which the treatment is better; return its report."""
    draws = random.Random(0)
    http.post("/v1/experiments", json=DEFINITION).raise_for_status()
    http.post("/v1/experiments/closing/start").raise_for_status()
    body = {"prompt": "x", "max_tokens": 1, "experiment": "closing"}
    for batch in range(batches):
        given = []
        for user in range(batch * users, (batch + 1) * users):
            exposure = http.post("/v1/completions", json=body | {"user": f"user-{user}"}).json()["exposure"]
            given.append(
                {"exposure": exposure["id"], "value": draws.random() < (0.05 if exposure["arm"] == "control" else 0.95)}
            )
        http.post("/v1/experiments/closing/outcomes", json={"outcomes": given}).raise_for_status()
    report: dict[str, Any] = http.get("/v1/experiments/closing/report").json()
    return report


def test_an_experiment_shows_the_figures_of_its_report_and_how_they_came(page: Page, http: httpx.Client, url: str):
    report = run(http)
    open_page(page, url, "#experiments?name=closing")
    for arm in report["arms"]:
        percent = str(round(100 * arm["mean"], 1)).removesuffix(".0")
        expect(page.locator(".rates strong").nth(report["arms"].index(arm))).to_have_text(f"{percent}%")
        row = re.compile(f"^{arm['name']} 50% {arm['units']} {arm['units']} ")
        expect(page.get_by_role("row", name=row)).to_be_visible()
    assert report["comparisons"][0]["verdict"] == "better"
    expect(page.locator(".difference .badge")).to_have_text("better")
    expect(page.get_by_role("img", name="accepted of each arm over time").locator(".line")).to_have_count(2)
    expect(page.get_by_role("img", name="Difference from control over time").locator(".band")).to_have_count(1)
    expect(page.get_by_role("row", name=re.compile("^errors steered 0 0 0 "))).to_be_visible()
    expect(page.get_by_text("as the weights say")).to_be_visible()


def test_an_experiment_is_stopped_and_started_again(page: Page, http: httpx.Client, url: str):
    http.post("/v1/experiments", json=DEFINITION).raise_for_status()
    open_page(page, url, "#experiments")
    for action, state in (("Start", "running"), ("Stop", "stopped"), ("Start again", "running")):
        page.get_by_role("button", name=action, exact=True).click()
        expect(page.locator(".profile-name .badge")).to_have_text(state)
        assert http.get("/v1/experiments/closing").json()["state"] == state


def test_a_running_experiment_is_read_again(page: Page, http: httpx.Client, url: str):
    run(http, batches=1, users=2)
    open_page(page, url, "#experiments?name=closing")
    expect(page.get_by_text(re.compile("^2 of about"))).to_be_visible()
    body = {"prompt": "x", "max_tokens": 1, "user": "new", "experiment": "closing"}
    exposure = http.post("/v1/completions", json=body)
    outcome = {"exposure": exposure.json()["exposure"]["id"], "value": 1}
    http.post("/v1/experiments/closing/outcomes", json={"outcomes": [outcome]}).raise_for_status()
    expect(page.get_by_text(re.compile("^3 of about"))).to_be_visible()


def test_a_mismatch_of_the_sample_ratio_is_told_first(page: Page, http: httpx.Client, url: str):
    run(http, batches=1, users=2)
    report = http.get("/v1/experiments/closing/report").json()
    report["sample_ratio"] |= {"mismatch": True, "p_value": 1e-9}
    report["warnings"] = ["sample ratio mismatch: the other figures cannot be trusted"]
    page.route("**/closing/report", lambda route: route.fulfill(json=report))
    open_page(page, url, "#experiments?name=closing")
    expect(page.locator(".notice.bad")).to_have_text("Sample ratio mismatch: the other figures cannot be trusted.")
    expect(page.get_by_text("p = < 0.0001")).to_be_visible()


def test_text_of_an_experiment_is_never_html(page: Page, http: httpx.Client, url: str):
    http.post("/v1/experiments", json=DEFINITION).raise_for_status()
    open_page(page, url, "#experiments?name=closing")
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    assert page.locator("main img").count() == 0


def test_without_experiments_the_tab_says_how_to_begin(page: Page, url: str):
    open_page(page, url, "#experiments")
    expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()


def test_a_key_must_have_the_role_admin(page: Page, experiments: Experiments, tmp_path):
    with keyed(tmp_path, experiments=experiments) as server:
        admin, user = server.add("ops", role="admin"), server.add("me")
        httpx.post(f"{server.url}/v1/experiments", json=DEFINITION, headers=admin).raise_for_status()
        page.goto(f"{server.url}/#experiments")

        def enter(header: dict[str, str]) -> None:
            page.get_by_label("Key", exact=True).fill(header["authorization"].removeprefix("Bearer "))
            page.get_by_role("button", name="Use this key").click()

        enter(user)
        expect(page.get_by_role("alert")).to_contain_text("Your API key does not allow this.")
        page.get_by_role("button", name="API key").click()
        enter(admin)
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.locator(".profile-name .badge")).to_have_text("running")
        changes = httpx.get(f"{server.url}/v1/experiments/closing", headers=admin).json()["changes"]
        assert (changes[-1]["action"], changes[-1]["by"]) == ("start", "ops")
