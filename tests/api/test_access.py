"""With API keys, only the probes and the page are answered without one, and a key does what it may and no more."""

import math
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import openai
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_server.access.key_files import edit_key_file, without
from steering_server.api.app import create_app
from steering_server.api.dependencies import AdminDep
from steering_server.api.service import Service
from steering_server.api.settings import ApiSettings
from steering_server.page.files import page_files
from tests.api.keyed import Keyed, keyed
from tests.api.logged import request_line

PATHS = [
    *create_app(Service()).openapi()["paths"], "/docs", "/redoc", "/openapi.json", "/metrics", "/nowhere",
    "/", "/page/main.js", "/page", "/page/nowhere.js",
    "//health", "/health/", "/HEALTH", "/health;x", "/health/../v1/models", "/%2e%2e/v1/models", "/ready%00",
    "/v1/models/..%2f..%2fetc%2fpasswd", "/v1/profiles/..%2f..%2fetc%2fpasswd", "/v1/chat/completions/",
]  # fmt: skip
BODY = {"prompt": "x", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)
OPEN = {"/health", "/ready", *page_files()}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]
CREDENTIALS: dict[str, list[tuple[str, str]]] = {
    "an empty one": [("authorization", "")],
    "no key": [("authorization", "Bearer")],
    "a wrong key": [("authorization", f"Bearer sk-steer-{'x' * 43}")],
    "another scheme": [("authorization", "Basic c2stc3RlZXI6eA==")],
    "another header": [("x-api-key", "sk-steer-x"), ("api-key", "sk-steer-x")],
    "two": [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    "much": [("authorization", "Bearer " + "x" * 20000)],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with keyed(tmp_path_factory.mktemp("keyed")) as server:
        yield server


@pytest.fixture(scope="module")
def user(server: Keyed) -> dict[str, str]:
    return server.add("user")


def error(response: httpx.Response) -> tuple[int, str, str | None]:
    body = response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return response.status_code, body["type"], body["code"]


def test_nothing_but_the_probes_and_the_page_is_answered_without_a_key(server: Keyed):
    before = len(server.generated)
    with httpx.Client() as http:
        for path in PATHS:  # joined here, since httpx makes / of //health
            for method in METHODS:
                response = http.request(method, server.url + path, json=BODY)
                if path in OPEN:
                    assert response.status_code != 401, (method, path)
                    continue
                assert response.status_code == 401, (method, path)
                assert response.headers["www-authenticate"] == "Bearer"
                if method != "HEAD":
                    assert error(response) == (401, "invalid_request_error", "invalid_api_key")
    assert len(server.generated) == before


@pytest.mark.parametrize("credentials", CREDENTIALS.values(), ids=CREDENTIALS)
def test_what_is_no_key_is_refused(server: Keyed, credentials: list[tuple[str, str]]):
    before = len(server.generated)
    for path in ("/v1/completions", "/v1/chat/completions", "/nowhere"):
        response = httpx.post(server.url + path, headers=credentials, json=BODY)
        assert error(response) == (401, "invalid_request_error", "invalid_api_key")
    assert len(server.generated) == before


@settings(max_examples=30)
@given(path=st.text("abcv1/%.0;?#\\ü ", max_size=20), secret=st.text(PRINTABLE, min_size=1))
def test_no_path_and_no_key_of_ones_own_making_gets_past(server: Keyed, path: str, secret: str):
    response = httpx.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {secret}"})
    assert response.status_code == 401
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET /x" + path.encode("ascii", "ignore").replace(b" ", b"") + b" HTTP/1.0\r\n\r\n")
        assert connection.recv(100).split()[1] in (b"401", b"400")


def test_a_key_opens_every_route(server: Keyed, user: dict[str, str]):
    assert server.complete(user).status_code == 200
    for path in ("/v1/models", "/v1/profiles", "/openapi.json", "/docs"):
        assert httpx.get(server.url + path, headers=user).status_code == 200
    assert httpx.get(server.url + "/nowhere", headers=user).status_code == 404
    scheme, secret = user["authorization"].split()
    assert server.complete({"authorization": f"{scheme.lower()}   {secret}"}).status_code == 200


def test_openais_client_sends_the_key_and_knows_the_error(server: Keyed, user: dict[str, str]):
    right = openai.OpenAI(base_url=f"{server.url}/v1", api_key=user["authorization"].removeprefix("Bearer "))
    assert right.completions.create(model="tiny-llama", prompt="x", max_tokens=1).choices
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-steer-wrong")
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.completions.create(model="tiny-llama", prompt="x", max_tokens=1)
    assert caught.value.code == "invalid_api_key"
    assert "sk-steer-wrong" not in str(caught.value)


def test_a_running_server_takes_new_keys_and_refuses_revoked_and_expired_ones(server: Keyed):
    brief = server.add("brief", expires=datetime.now(UTC) + timedelta(seconds=1))
    new = server.add("new")
    assert {server.complete(new).status_code, server.complete(brief).status_code} == {200}
    edit_key_file(server.keys, lambda known: without(known, "new"))
    assert error(server.complete(new)) == (401, "invalid_request_error", "invalid_api_key")
    time.sleep(1)
    assert "has expired" in server.complete(brief).json()["error"]["message"]


def test_the_log_names_the_key_and_never_shows_it(server: Keyed, user: dict[str, str]):
    line = request_line(lambda: server.complete(user))
    assert line["client"] == "user"
    assert user["authorization"].split()[1] not in str(line)


@pytest.mark.parametrize("steering", [{"model": "tiny-llama+heads"}, {"arms": ["baseline", "final+heads"]}])
def test_a_key_may_use_its_profiles_and_the_baseline_and_no_others(server: Keyed, steering: dict[str, object]):
    name = "-".join(steering)
    key = server.add(f"final-{name}", profiles=("final",))
    before = len(server.generated)
    refused = server.complete(key, **steering)
    assert error(refused) == (403, "permission_error", "profile_not_allowed")
    assert "may not use the profile heads; it may use: final" in refused.json()["error"]["message"]
    assert len(server.generated) == before
    assert server.complete(key).status_code == 200
    assert server.complete(key, arms=["baseline", "final"]).status_code == 200


class TestListings:
    """A key that may use some profiles is told of these only."""

    def names(self, server: Keyed, key: dict[str, str]) -> tuple[list[str], list[str]]:
        models, profiles = (httpx.get(f"{server.url}/v1/{what}", headers=key).json() for what in ("models", "profiles"))
        return [model["id"] for model in models["data"]], [profile["name"] for profile in profiles["data"]]

    def test_a_limited_key_is_told_of_its_profiles(self, server: Keyed):
        assert self.names(server, server.add("told", profiles=("final",))) == (
            ["tiny-llama", "tiny-llama+final"],
            ["final"],
        )
        assert self.names(server, server.add("told-none", profiles=())) == (["tiny-llama"], [])

    def test_others_are_told_of_all(self, server: Keyed):
        everything = (["tiny-llama", "tiny-llama+final", "tiny-llama+heads"], ["final", "heads"])
        assert self.names(server, server.add("told-all")) == everything
        models, profiles = self.names(server, server.add("told-admin", role="admin", profiles=("final",)))
        assert (models, profiles) == (everything[0][:2], everything[1])

    def test_a_profile_that_it_may_not_use_is_described_to_nobody(self, server: Keyed):
        key = server.add("describe", profiles=("final",))
        for path in ("profiles/heads", "models/tiny-llama+heads", "models/tiny-llama+final+heads@0.5"):
            refused = httpx.get(f"{server.url}/v1/{path}", headers=key)
            assert error(refused) == (403, "permission_error", "profile_not_allowed")
        assert httpx.get(f"{server.url}/v1/profiles/final", headers=key).status_code == 200
        for path in ("profiles/none", "models/tiny-llama+none"):
            unknown = httpx.get(f"{server.url}/v1/{path}", headers=key)
            assert unknown.status_code == 404
            assert "heads" not in unknown.text
        assert "heads" not in server.complete(key, model="tiny-llama+none").text


def test_a_default_that_a_key_may_not_use_is_not_listed_and_refused(tmp_path: Path):
    with keyed(tmp_path, default="heads") as server:
        key = server.add("other", profiles=("final",))
        listed = httpx.get(f"{server.url}/v1/models", headers=key).json()["data"]
        assert [model["id"] for model in listed] == ["tiny-llama+baseline", "tiny-llama+final"]
        assert error(server.complete(key)) == (403, "permission_error", "profile_not_allowed")
        assert server.complete(key, model="tiny-llama+baseline").status_code == 200
        assert httpx.get(f"{server.url}/v1/models/tiny-llama", headers=key).status_code == 403


def test_requests_beyond_a_minutes_limit_are_refused_with_the_true_time(server: Keyed):
    key = server.add("few", requests_per_minute=2)
    began = time.monotonic()
    assert [httpx.get(f"{server.url}/v1/models", headers=key).status_code for _ in range(2)] == [200, 200]
    refused = server.complete(key)
    assert error(refused) == (429, "rate_limit_error", "rate_limit_exceeded")
    left = 60 - (time.monotonic() - began)
    assert math.floor(left) <= int(refused.headers["retry-after"]) <= 60
    assert server.complete(server.add("other")).status_code == 200


def test_every_answer_tells_what_is_left_of_a_keys_limits(server: Keyed):
    key = server.add("told-limits", requests_per_minute=2, tokens_per_minute=1000)
    answers = [server.complete(key, ignore_eos=True) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
    assert 0 < int(answers[2].headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    left = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers]
    assert left[0] == 1000 - 5
    assert left[2] == 1000 - 10
    assert not any("ratelimit" in name for name in server.complete(server.add("unlimited")).headers)


def test_a_stream_outlives_the_key_that_began_it(server: Keyed):
    key = server.add("revoked-while")
    body = {"prompt": "abc", "max_tokens": 400, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, headers=key, timeout=60) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        edit_key_file(server.keys, lambda known: without(known, "revoked-while"))
        assert server.complete(key).status_code == 401
        assert [line for line in lines if line][-1] == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_prompts_and_completions_are_limited_and_only_those_that_were_used_count(server: Keyed, stream: bool):
    key = server.add(f"tokens-{stream}", tokens_per_minute=40)
    for _ in range(4):  # of 3 + 2 tokens, each
        assert server.complete(key, max_tokens=2, min_tokens=2, ignore_eos=True, stream=stream).status_code == 200
    refused = server.complete(key, max_tokens=18, stream=stream)
    assert error(refused) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert "20 are left and this request can use 21" in refused.json()["error"]["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert server.complete(key, max_tokens=17, stream=stream).status_code == 200


def test_sequences_beyond_those_of_the_key_are_refused_before_they_reach_the_model(server: Keyed):
    key = server.add("narrow", max_sequences=2)
    refused = server.complete(key, n=3)
    assert error(refused) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert server.complete(key, n=2).status_code == 200


def test_an_admin_route_needs_an_admins_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def with_admin_route(*given: object) -> FastAPI:
        app = create_app(*given)  # type: ignore[arg-type]

        @app.get("/admin")
        def admin(caller: AdminDep) -> str:
            return str(caller.client)

        return app

    monkeypatch.setattr("steering_server.api.lifecycle.create_app", with_admin_route)
    with keyed(tmp_path) as server:
        user, admin = server.add("one"), server.add("root", role="admin")
        refused = httpx.get(f"{server.url}/admin", headers=user)
        assert error(refused) == (403, "permission_error", "insufficient_permissions")
        assert httpx.get(f"{server.url}/admin").status_code == 401
        assert httpx.get(f"{server.url}/admin", headers=admin).json() == "root"


def test_the_metrics_and_the_documents_are_open_or_absent_by_setting(tmp_path: Path):
    with keyed(tmp_path, ApiSettings(docs=False), metrics="open") as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        key = server.add("user")
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert httpx.get(server.url + path).status_code == 401
            assert httpx.get(server.url + path, headers=key).status_code == 404
        assert server.complete(key).status_code == 200
