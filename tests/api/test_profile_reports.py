"""The report of a profile's fit over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from steering_profiles.store import SHIPPED
from tests.api.keyed import keyed
from tests.builders import build_model, build_profile
from tests.serving import serving

REPORT = "<!DOCTYPE html><title>mine</title><script>alert(1)</script>ü"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "mine.html").write_text(REPORT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    model = build_model("llama", dtype=torch.float32)
    profiles = [build_profile(model, name, heads=[(0, 1, 2.0)]) for name in ("mine", "other")]
    with serving(model, folder, profiles, shipped=True) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_a_report_beside_the_profile_is_given_out_as_it_is(http: httpx.Client):
    answer = http.get("/v1/profiles/mine/report")
    assert (answer.status_code, answer.text) == (200, REPORT)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_a_report_of_a_shipped_profile_is_that_of_the_package(http: httpx.Client):
    assert http.get("/v1/profiles/parentheses/report").content == (SHIPPED / "parentheses.html").read_bytes()


def test_a_browser_runs_nothing_of_a_report(http: httpx.Client):
    policy = http.get("/v1/profiles/mine/report").headers["content-security-policy"]
    assert policy == "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_profiles_say_whether_there_is_a_report(http: httpx.Client):
    has = {one["name"]: one["has_report"] for one in http.get("/v1/profiles").json()["data"]}
    assert has == {"factual-recall": True, "mine": True, "other": False, "parentheses": True}


@pytest.mark.parametrize(
    ("name", "code"), [("other", "report_not_found"), ("nothing", "profile_not_found"), ("..%2fmine", None)]
)
def test_a_report_that_is_not_there_is_not_found(http: httpx.Client, name: str, code: str | None):
    answer = http.get(f"/v1/profiles/{name}/report")
    assert answer.status_code == 404
    assert code is None or answer.json()["error"]["code"] == code


def test_a_report_that_is_deleted_meanwhile_is_not_found(http: httpx.Client, folder: Path):
    (folder / "other.html").write_text("x")
    assert http.get("/v1/profiles/other/report").status_code == 200
    (folder / "other.html").unlink()
    assert http.get("/v1/profiles/other/report").status_code == 404


def test_a_key_sees_the_reports_of_its_profiles_only(tmp_path: Path):
    with keyed(tmp_path) as server:
        for name in ("heads", "final"):
            (tmp_path / "profiles" / f"{name}.html").write_text(REPORT)
        some = server.add("some", profiles=("heads",))
        asked = [
            httpx.get(f"{server.url}/v1/profiles/{name}/report", headers=headers).status_code
            for name, headers in (("heads", {}), ("heads", some), ("final", some))
        ]
    assert asked == [401, 200, 403]
