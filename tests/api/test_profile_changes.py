"""Profiles are put, replaced, disabled and deleted while the server runs."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import httpx
import pytest
import torch
from fastapi.routing import APIRoute

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, content_hash, load_profile
from steering_server.api.dependencies import AdminDep
from steering_server.api.routes import profiles
from tests.api.keyed import keyed
from tests.api.profile_bodies import JSON, as_json, put, validate
from tests.builders import build_model, build_profile
from tests.serving import serving

GREEDY = {"prompt": "print(str(1", "max_tokens": 8, "temperature": 0}


def scaled(model: LoadedModel, scale: float, name: str = "mine") -> Profile:
    return build_profile(model, name, heads=[(0, 1, scale), (1, 2, -scale)])


def with_tensors(model: LoadedModel, name: str = "mine", seed: int = 0) -> Profile:
    return build_profile(model, name, intercept_scale=0.9, seed=seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


def fresh() -> LoadedModel:
    """The model of the other tests once more, since a model serves one server at a time."""
    return build_model("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(fresh(), folder, shipped=True, watched=True) as url:
        yield url


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client
        for profile in client.get("/v1/profiles").json()["data"]:
            client.post(f"/v1/profiles/{profile['name']}/enable")
            if not profile["shipped"]:
                assert client.delete(f"/v1/profiles/{profile['name']}").status_code == 200


def ask(http: httpx.Client, model: str = "tiny-llama+mine") -> tuple[str, str]:
    """The text of an answer, and the content hash of what was applied."""
    answer = http.post("/v1/completions", json=GREEDY | {"model": model})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"], answer.json()["steering"]["content_hash"]


def error(response: httpx.Response) -> tuple[int, str | None, str | None]:
    body = response.json()["error"]
    return response.status_code, body["param"], body["code"]


def test_a_profile_that_is_put_is_applied_listed_and_in_the_folder(
    http: httpx.Client, model: LoadedModel, folder: Path
):
    profile = scaled(model, 4)
    created = put(http, profile)
    assert created.status_code == 201
    assert created.headers["etag"] == f'"{content_hash(profile)}"'
    change = created.json()
    assert (change["content_hash"], change["replaced"], change["survives_restart"]) == (
        content_hash(profile), None, True
    )  # fmt: skip
    assert ask(http)[1] == content_hash(profile)
    assert "tiny-llama+mine" in [each["id"] for each in http.get("/v1/models").json()["data"]]
    assert http.get("/v1/profiles/mine").headers["etag"] == created.headers["etag"]
    assert content_hash(load_profile(folder / "mine.json")) == content_hash(profile)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["gets tensors", "loses tensors"])
def test_a_replacement_is_applied_to_the_next_request(
    http: httpx.Client, model: LoadedModel, folder: Path, order: tuple[int, int]
):
    both = (scaled(model, 4), with_tensors(model))
    old, new = (both[index] for index in order)
    assert put(http, old).status_code == 201
    before = ask(http)
    replaced = put(http, new)
    assert (replaced.status_code, replaced.json()["replaced"]) == (200, content_hash(old))
    after = ask(http)
    assert (before[1], after[1]) == (content_hash(old), content_hash(new))
    assert before[0] != after[0]
    assert list(Catalogue.open(folder, shipped=False)) == ["mine"]
    assert content_hash(load_profile(folder / "mine.json")) == content_hash(new)


def test_what_was_put_is_there_after_a_restart(model: LoadedModel, tmp_path: Path):
    profile, other = with_tensors(model), scaled(model, 2, "other")
    with serving(fresh(), tmp_path, watched=True) as url, httpx.Client(base_url=url) as http:
        assert put(http, profile).status_code == 201
        assert put(http, other).status_code == 201
        first = ask(http)
        assert http.post("/v1/profiles/other/disable").json()["survives_restart"] is True
    with serving(fresh(), tmp_path, watched=True) as url, httpx.Client(base_url=url) as http:
        assert ask(http) == first
        assert {each["name"]: each["enabled"] for each in http.get("/v1/profiles").json()["data"]} == {
            "mine": True, "other": False
        }  # fmt: skip


def test_without_a_folder_a_profile_is_kept_in_memory_and_said_to_be(model: LoadedModel, tmp_path: Path):
    with serving(fresh(), tmp_path) as url, httpx.Client(base_url=url) as http:
        change = put(http, scaled(model, 4)).json()
        assert (change["survives_restart"], change["profile"]["storage"]) == (False, "memory")
        assert ask(http)[1] == content_hash(scaled(model, 4))
        assert http.post("/v1/profiles/mine/disable").json()["survives_restart"] is False
        assert http.delete("/v1/profiles/mine").json()["survives_restart"] is False
        assert http.get("/v1/profiles/mine").status_code == 404
    assert list(tmp_path.iterdir()) == []


def test_validation_answers_as_put_would_and_changes_nothing(http: httpx.Client, model: LoadedModel, folder: Path):
    profile = with_tensors(model)
    told = validate(http, profile)
    assert told.status_code == 200
    assert list(folder.glob("[!.]*")) == []
    assert http.get("/v1/profiles/mine").status_code == 404
    assert put(http, profile).json() == told.json()
    other = build_profile(build_model("llama", layers=2), "mine", heads=[(0, 1, 2.0)])
    assert validate(http, other).json() == put(http, other).json()
    assert error(validate(http, profile, if_none_match="*")) == (412, "If-None-Match", "precondition_failed")


def test_a_profile_for_another_model_is_refused_with_the_reason(http: httpx.Client, model: LoadedModel):
    put(http, scaled(model, 4))
    refused = put(http, build_profile(build_model("gpt2"), "mine", heads=[(0, 1, 2.0)]))
    assert error(refused) == (409, "model", "profile_mismatch")
    assert "architecture is LlamaForCausalLM here, GPT2LMHeadModel in the profile" in refused.json()["error"]["message"]
    assert ask(http)[1] == content_hash(scaled(model, 4)), "the version before stays"


def test_a_deleted_profile_is_gone_from_the_folder_too(http: httpx.Client, model: LoadedModel, folder: Path):
    put(http, with_tensors(model))
    deleted = http.delete("/v1/profiles/mine").json()
    assert (deleted["content_hash"], deleted["replaced"]) == (None, content_hash(with_tensors(model)))
    assert list(folder.glob("[!.]*")) == []
    answer = http.post("/v1/completions", json=GREEDY | {"model": "tiny-llama+mine"})
    assert error(answer) == (404, "model", "model_not_found")
    assert error(http.delete("/v1/profiles/mine")) == (404, "name", "profile_not_found")


def test_a_shipped_profile_cannot_be_deleted_but_hidden_and_disabled(http: httpx.Client, model: LoadedModel):
    shipped = http.get("/v1/profiles/parentheses").json()["content_hash"]
    assert error(http.delete("/v1/profiles/parentheses")) == (409, "name", "profile_shipped")
    own = scaled(model, 2, "parentheses")
    assert put(http, own).json()["replaced"] == shipped
    assert ask(http, "tiny-llama+parentheses")[1] == content_hash(own)
    assert http.delete("/v1/profiles/parentheses").json()["content_hash"] == shipped
    assert http.post("/v1/profiles/parentheses/disable").json()["profile"]["enabled"] is False


def test_a_disabled_profile_is_refused_by_name_until_it_is_enabled(http: httpx.Client, model: LoadedModel):
    put(http, scaled(model, 4))
    assert http.post("/v1/profiles/mine/disable").json()["profile"]["model_name"] is None
    for body, param in (
        ({"model": "tiny-llama+mine"}, "model"),
        ({"steering": {"profile": "mine"}}, "steering.profile"),
        ({"arms": ["baseline", "mine@0.5"]}, "arms.1"),
    ):
        answer = http.post("/v1/completions", json=GREEDY | body)
        assert error(answer) == (404, param, "profile_disabled")
        assert "profile mine is disabled" in answer.json()["error"]["message"]
    assert "tiny-llama+mine" not in http.get("/v1/models").text
    assert put(http, scaled(model, 3)).json()["profile"]["enabled"] is False, "a new version stays disabled"
    assert http.post("/v1/profiles/mine/enable").json()["profile"]["enabled"] is True
    assert ask(http)[1] == content_hash(scaled(model, 3))


def test_two_admins_do_not_overwrite_each_other(http: httpx.Client, model: LoadedModel):
    first = put(http, scaled(model, 1.5), if_none_match="*")
    assert first.status_code == 201
    assert error(put(http, scaled(model, 2), if_none_match="*")) == (412, "If-None-Match", "precondition_failed")
    second = put(http, scaled(model, 2), if_match=first.headers["etag"])
    assert second.status_code == 200
    late = put(http, scaled(model, 3), if_match=first.headers["etag"])
    assert error(late) == (412, "If-Match", "precondition_failed")
    assert second.headers["etag"] in late.json()["error"]["message"]
    for method, path in (("DELETE", ""), ("POST", "/disable"), ("POST", "/enable")):
        old = {"if-match": first.headers["etag"]}
        assert http.request(method, f"/v1/profiles/mine{path}", headers=old).status_code == 412
    assert put(http, scaled(model, 3), if_match=f'"other", {second.headers["etag"]}').status_code == 200
    assert put(http, scaled(model, 4, "new"), if_match="*").status_code == 412


def test_of_many_admins_at_once_one_creates_the_profile(address: str, http: httpx.Client, model: LoadedModel):
    def create(scale: int) -> int:
        with httpx.Client(base_url=address) as own:
            return put(own, scaled(model, scale), if_none_match="*").status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(create, range(2, 10)))
    assert sorted(statuses) == [201] + [412] * 7


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["sha256:0", '"a', '"a" "b"', '*, "a"', "", "W/", '"a",'])
def test_a_condition_that_is_no_entity_tag_is_refused_by_name(
    http: httpx.Client, model: LoadedModel, header: str, value: str
):
    response = http.put("/v1/profiles/mine", content=as_json(scaled(model, 2)), headers=JSON | {header: value})
    assert error(response) == (400, header, None)


@pytest.mark.parametrize("name", ["Mine", "a+b", "a@1", "baseline", "-a", ".a", "..", "a" * 65, "%00", "a%0Ab", "ä"])
def test_a_name_that_no_profile_may_have_is_refused(http: httpx.Client, model: LoadedModel, folder: Path, name: str):
    path = f"/v1/profiles/{name if name != '..' else '%2e%2e'}"
    response = http.put(path, content=as_json(scaled(model, 2)), headers=JSON)
    assert response.status_code in (400, 404)  # 404 where the path is not that of a profile
    assert http.delete(path).status_code == 404
    assert list(folder.glob("[!.]*")) == []


def test_a_path_in_a_name_reaches_no_file(http: httpx.Client, model: LoadedModel, folder: Path):
    beside = folder.parent / "beside.json"
    beside.write_bytes(as_json(scaled(model, 2, "beside")))
    for name in ("..%2fbeside", "%2e%2e%2fbeside", f"{folder.parent}/beside".replace("/", "%2f")):
        assert http.delete(f"/v1/profiles/{name}").status_code == 404
        assert http.put(f"/v1/profiles/{name}", content=as_json(scaled(model, 3)), headers=JSON).status_code == 404
        assert http.post(f"/v1/profiles/{name}/disable").status_code == 404
    assert beside.read_bytes() == as_json(scaled(model, 2, "beside"))


def test_a_folder_that_cannot_be_written_is_a_409_and_disabling_works_until_the_end(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))  # tests may run as root, whom no permission stops

    with (
        serving(fresh(), tmp_path, [scaled(model, 4)], watched=True) as url,
        httpx.Client(base_url=url) as http,
    ):
        monkeypatch.setattr("steering_profiles.writing.tempfile.NamedTemporaryFile", refuse)
        refused = put(http, scaled(model, 2))
        assert error(refused) == (409, None, "folder_not_writable")
        assert "Read-only file system" in refused.json()["error"]["message"]
        assert ask(http)[1] == content_hash(scaled(model, 4))
        assert http.post("/v1/profiles/mine/disable").json()["survives_restart"] is False
        (tmp_path / "other.json").write_bytes(as_json(scaled(model, 2, "other")))  # the folder is read again
        while "other" not in http.get("/v1/profiles").text:
            pass
        assert http.get("/v1/profiles/mine").json()["enabled"] is False


def test_every_change_needs_the_role_admin():
    changes = [route for route in profiles.router.routes if isinstance(route, APIRoute)]
    assert {(method, route.path) for route in changes for method in route.methods} == {
        ("PUT", "/v1/profiles/{name}"),
        ("DELETE", "/v1/profiles/{name}"),
        ("POST", "/v1/profiles/{name}/validate"),
        ("POST", "/v1/profiles/{name}/disable"),
        ("POST", "/v1/profiles/{name}/enable"),
    }
    (admin,) = [each.dependency for each in get_args(AdminDep)[1:]]
    for route in changes:
        assert admin in [dependency.call for dependency in route.dependant.dependencies]


def test_with_api_keys_only_an_admin_changes_profiles(model: LoadedModel, tmp_path: Path):
    body, path = as_json(scaled(model, 4)), "/v1/profiles/mine"
    with keyed(tmp_path) as server, httpx.Client(base_url=server.url) as http:
        user, admin = server.add("reader", role="user"), server.add("operator", role="admin")
        for method, action in (("PUT", ""), ("DELETE", ""), ("POST", "/validate"), ("POST", "/disable")):
            for headers, status in (({}, 401), ({"authorization": "Bearer guessed"}, 401), (user, 403)):
                refused = http.request(method, f"{path}{action}", content=body, headers=headers | JSON)
                assert refused.status_code == status
        assert http.get(path, headers=user).status_code == 404, "nothing was changed"
        assert http.put(path, content=body, headers=admin | JSON).status_code == 201
        assert server.complete(user, model="tiny-llama+mine").status_code == 200
        assert http.post(f"{path}/disable", headers=admin).status_code == 200
        assert server.complete(user, model="tiny-llama+mine").status_code == 404
