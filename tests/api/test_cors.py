"""A page in a browser may use the API if its origin is allowed, with and without keys."""

from collections.abc import Iterator

import httpx
import pytest

from steering_server.api.settings import ApiSettings
from steering_server.config import load_settings
from steering_server.errors import ConfigError
from tests.api.keyed import Keyed, keyed

PAGE = "https://example.org"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-stainless-os"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with keyed(tmp_path_factory.mktemp("cors"), ApiSettings(cors_origins=(PAGE,))) as server:
        yield server


def preflight(url: str, origin: str, **others: str) -> httpx.Response:
    return httpx.options(f"{url}/v1/chat/completions", headers={"origin": origin} | ASKS | others)


def test_a_preflight_is_answered_without_a_key(server: Keyed):
    response = preflight(server.url, PAGE)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "POST" in response.headers["access-control-allow-methods"]
    assert {"authorization", "x-stainless-os"} <= {
        name.strip().lower() for name in response.headers["access-control-allow-headers"].split(",")
    }
    assert int(response.headers["access-control-max-age"]) > 0
    assert "origin" in response.headers["vary"].lower()
    assert "access-control-allow-credentials" not in response.headers


def test_a_preflight_from_another_origin_allows_nothing(server: Keyed):
    for origin in ("https://example.com", "https://example.org.evil.example", "http://example.org", "null"):
        assert "access-control-allow-origin" not in preflight(server.url, origin).headers


def test_a_page_may_read_the_answer_and_its_headers(server: Keyed):
    answered = server.complete(server.add("page") | {"origin": PAGE})
    assert answered.status_code == 200
    assert answered.headers["access-control-allow-origin"] == PAGE
    exposed = {name.strip() for name in answered.headers["access-control-expose-headers"].split(",")}
    assert {"x-steering", "x-request-id", "retry-after"} <= exposed


def test_a_page_may_read_why_it_was_refused(server: Keyed):
    for response in (
        server.complete({"origin": PAGE}),
        server.complete({"origin": PAGE} | server.add("bad"), max_tokens=-1),
        httpx.post(f"{server.url}/v1/completions", content=b"x" * (17 * 2**20), headers={"origin": PAGE}),
    ):
        assert response.status_code in (401, 400, 413)
        assert response.headers["access-control-allow-origin"] == PAGE


def test_other_requests_that_ask_for_options_need_a_key(server: Keyed):
    assert httpx.options(f"{server.url}/v1/models").status_code == 401
    assert httpx.options(f"{server.url}/v1/models", headers={"origin": PAGE}).status_code == 401


def test_by_default_no_origin_is_allowed(url: str):
    assert preflight(url, PAGE).status_code == 405
    answered = httpx.get(f"{url}/v1/models", headers={"origin": PAGE})
    assert not [name for name in answered.headers if name.startswith("access-control")]


def test_origins_are_read_from_a_list_and_from_a_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_CORS_ORIGINS", "https://example.org, http://localhost:3000,http://[::1]:8080")
    assert load_settings().cors_origins == ("https://example.org", "http://localhost:3000", "http://[::1]:8080")
    assert load_settings(cors_origins=["*"]).cors_origins == ("*",)


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://Example.org", "https://*.org", ""])
def test_what_is_no_origin_is_refused(origin: str):
    with pytest.raises(ConfigError, match="an origin must be"):
        load_settings(cors_origins=[origin])
