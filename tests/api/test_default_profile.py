"""A default profile steers clients who name none, and none of them is ever answered unsteered because it is gone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.store import Catalogue, content_hash, save_profile
from steering_server.errors import ConfigError
from tests.api.profile_bodies import put
from tests.api.test_profile_files import until
from tests.builders import build_model, build_profile
from tests.serving import build_backend, serving

GREEDY = {"prompt": "print(str(1", "max_tokens": 8, "temperature": 0}


@pytest.fixture
def folder(tmp_path: Path, model: LoadedModel) -> Path:
    save_profile(build_profile(model, "mine", heads=[(0, 1, 4.0), (1, 2, -2.0)]), tmp_path)
    save_profile(build_profile(model, "other", heads=[(2, 0, 3.0)]), tmp_path)
    return tmp_path


@pytest.fixture
def http(folder: Path) -> Iterator[httpx.Client]:
    """A client of a server whose default is ``mine@0.5``."""
    loaded = build_model("llama", dtype=torch.float32)
    with serving(loaded, folder, watched=True, default="mine@0.5") as url, httpx.Client(base_url=url) as client:
        yield client


def ask(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/v1/completions", json=GREEDY | fields)


def test_clients_who_know_nothing_are_steered_and_others_as_they_say(http: httpx.Client):
    label = {
        None: "mine@0.5",
        "tiny-llama": "mine@0.5",
        "tiny-llama+baseline": "baseline",
        "tiny-llama+mine": "mine",
        "tiny-llama+other@2": "other@2",
    }
    texts = {}
    for model, applied in label.items():
        answer = ask(http, model=model)
        assert answer.json()["steering"]["arm"] == applied
        assert answer.headers["x-steering"].partition(";")[0] == applied
        texts[applied] = answer.json()["choices"][0]["text"]
    assert len(set(texts.values())) == len(texts)
    by_object = ask(http, steering={"profile": "mine", "strength": 0.5}).json()
    assert by_object["choices"][0]["text"] == texts["mine@0.5"]
    for unsteered in ({"steering": {"profile": "mine", "strength": 0}}, {"steering": {"profile": "baseline"}}):
        assert ask(http, **unsteered).json()["choices"][0]["text"] == texts["baseline"]
    assert ask(http, steering=None).json()["steering"]["arm"] == "mine@0.5", "null is as if nothing was said"
    arms = ask(http, arms=["baseline", "other"]).json()["choices"]
    assert arms[0]["text"] == texts["baseline"]
    assert [choice["arm"] for choice in arms] == ["baseline", "other"]


def test_models_say_what_their_names_select(http: httpx.Client):
    listed = {each["id"]: each["arm"] for each in http.get("/v1/models").json()["data"]}
    assert listed == {
        "tiny-llama": "mine@0.5",
        "tiny-llama+baseline": "baseline",
        "tiny-llama+mine": "mine",
        "tiny-llama+other": "other",
    }
    for name, arm in {**listed, "tiny-llama+mine+other@-1": "mine+other@-1"}.items():
        assert http.get(f"/v1/models/{name}").json()["arm"] == arm
    assert http.get("/v1/profiles").json()["default"] == "mine@0.5"


def test_the_openai_client_is_steered_without_knowing_it(http: httpx.Client):
    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none") as client:
        answer = client.chat.completions.with_raw_response.create(
            model="tiny-llama", messages=[{"role": "user", "content": "x"}], max_tokens=2, stream=True
        )
        assert answer.headers["x-steering"].startswith("mine@0.5;profile=mine;hash=")


def error(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.json()["error"]["code"]


GONE = (503, "default_profile_unavailable")


def test_a_disabled_default_refuses_those_who_rely_on_it_and_nobody_else(http: httpx.Client):
    http.post("/v1/profiles/mine/disable")
    for model in (None, "tiny-llama"):
        refused = ask(http, model=model)
        assert error(refused) == GONE
        assert "default profile mine cannot be applied: it is disabled" in refused.json()["error"]["message"]
        assert error(ask(http, model=model, stream=True)) == GONE
    assert error(http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})) == GONE
    for model in ("tiny-llama+baseline", "tiny-llama+other"):
        assert ask(http, model=model).status_code == 200
    assert http.get("/v1/models").status_code == 200
    http.post("/v1/profiles/mine/enable")
    assert ask(http).json()["steering"]["arm"] == "mine@0.5"


def test_a_default_cannot_be_deleted_but_replaced(http: httpx.Client, model: LoadedModel):
    refused = http.delete("/v1/profiles/mine")
    assert error(refused) == (409, "profile_is_default")
    assert "is the server's default and cannot be deleted" in refused.json()["error"]["message"]
    new = build_profile(model, "mine", heads=[(0, 0, 5.0)])
    put(http, new)
    applied = ask(http).json()["steering"]
    assert (applied["content_hash"], applied["strength"]) == (content_hash(new), 0.5)


def test_a_default_whose_file_disappears_refuses_until_it_is_back(http: httpx.Client, model: LoadedModel, folder: Path):
    file = folder / "mine.json"
    content = file.read_bytes()
    file.unlink()
    until(lambda: ask(http).status_code != 200)
    assert error(ask(http)) == GONE
    assert "there is no such profile now" in ask(http).json()["error"]["message"]
    file.write_bytes(content)
    until(lambda: ask(http).status_code == 200)
    assert ask(http).json()["steering"]["profile"] == "mine"


def test_a_default_whose_file_breaks_keeps_the_version_before(http: httpx.Client, folder: Path):
    before = ask(http).json()["steering"]
    (folder / "mine.json").write_text("{")
    until(lambda: bool(http.get("/v1/profiles").json()["faults"]))
    assert ask(http).json()["steering"] == before


def test_profiles_of_a_default_that_would_no_longer_compose_are_refused(model: LoadedModel, tmp_path: Path):
    one, other = (build_profile(model, name, self_only_attention=1.0, gate=(0.1, 0.9)) for name in ("one", "other"))
    with (
        serving(
            build_model("llama", dtype=torch.float32), tmp_path, [one, other], watched=True, default="one+other"
        ) as url,
        httpx.Client(base_url=url) as http,
    ):
        assert ask(http).json()["steering"]["profile"] == "one+other"
        another = build_profile(model, "other", self_only_attention=1.0, gate=(0.2, 0.9))
        refused = put(http, another)
        assert (refused.status_code, refused.json()["error"]["param"]) == (409, "final_layer.gate")
        save_profile(another, tmp_path)  # in the folder nobody is there to be told
        until(lambda: ask(http).status_code != 200)
        assert error(ask(http)) == GONE
        assert "profiles with different gates cannot be composed" in ask(http).json()["error"]["message"]


@pytest.mark.parametrize(
    ("default", "says"),
    [
        ("nope", "default_profile is nope, but nope: there is no such profile; this model has: mine, other"),
        ("mine+nope@0.5", "default_profile is mine+nope@0.5, but nope: there is no such profile"),
        ("parentheses", "default_profile is parentheses, but parentheses: it does not fit the model: "),
    ],
)
def test_a_default_that_cannot_be_applied_ends_the_start(model: LoadedModel, folder: Path, default: str, says: str):
    with pytest.raises(ConfigError) as caught:
        build_backend(model, Catalogue.open(folder), default=default)
    assert str(caught.value).startswith(says)


def test_a_server_starts_with_a_default_that_is_disabled_and_refuses_those_who_rely_on_it(folder: Path):
    (folder / ".disabled.json").write_text('["mine"]')
    with (
        serving(build_model("llama", dtype=torch.float32), folder, watched=True, default="mine") as url,
        httpx.Client(base_url=url) as http,
    ):
        assert error(ask(http)) == GONE
        assert ask(http, model="tiny-llama+baseline").status_code == 200
