"""HEAD is answered like GET without the body, and a 405 lists the allowed methods."""

import asyncio
import re

import httpx
import pytest
import torch

from steering_profiles.store import Catalogue
from steering_server.api.app import create_app
from steering_server.api.service import Service
from steering_server.engines.local.backend import LocalBackend
from steering_server.limits import EngineLimits
from tests.api.logged import request_line
from tests.builders import build_model
from tests.serving import build_backend

READ = [
    "/health", "/ready", "/v1/models", "/v1/models/tiny-llama", "/v1/models/tiny-llama+heads", "/v1/profiles",
    "/v1/profiles/heads", "/docs", "/redoc", "/openapi.json", "/v1/models/nope", "/v1/profiles/nope", "/nowhere",
]  # fmt: skip
WRITTEN = ["/v1/completions", "/v1/chat/completions"]


def told(response: httpx.Response) -> tuple[int, dict[str, str]]:
    """The status and the headers, without those that differ between requests."""
    return response.status_code, {k: v for k, v in response.headers.items() if k not in ("date", "x-request-id")}


@pytest.mark.parametrize("path", READ)
def test_head_has_the_headers_of_get_and_no_body(http: httpx.Client, path: str):
    got, asked = http.get(path), http.head(path)
    assert told(asked) == told(got)
    assert int(asked.headers["content-length"]) == len(got.content) > 0
    assert asked.content == b""
    assert http.get("/health").status_code == 200, "the connection is still in step"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    catalogue = Catalogue.open(tmp_path_factory.mktemp("profiles"), shipped=False)
    return build_backend(build_model("llama", dtype=torch.float32), catalogue, EngineLimits(max_num_seqs=1))


@pytest.mark.parametrize("path", READ)
def test_head_has_no_body_even_without_a_server_that_drops_it(backend: LocalBackend, path: str):
    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(create_app(Service(backend)))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get(path), await client.head(path)

    got, asked = asyncio.run(ask())
    assert told(asked) == told(got)
    assert asked.content == b""


def test_a_head_with_a_body_that_is_too_large_is_refused_without_a_body(http: httpx.Client):
    response = http.request("HEAD", "/health", content=b"x" * (17 * 2**20))
    assert (response.status_code, response.content) == (413, b"")


@pytest.mark.parametrize("path", WRITTEN)
def test_head_is_not_allowed_where_get_is_not(http: httpx.Client, path: str):
    response = http.head(path)
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


ALLOWED = {path: "GET, HEAD" for path in READ if path != "/nowhere"} | dict.fromkeys(WRITTEN, "POST")
ALLOWED |= dict.fromkeys(("/v1/profiles/heads", "/v1/profiles/nope"), "DELETE, GET, HEAD, PUT")


@pytest.mark.parametrize(
    ("path", "allowed", "method"),
    [
        (path, allowed, method)
        for path, allowed in ALLOWED.items()
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS")
        if method not in allowed
    ],
)
def test_a_method_that_is_not_allowed_is_answered_with_the_allowed_ones(
    http: httpx.Client, path: str, allowed: str, method: str
):
    response = http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_the_openapi_description_lists_no_operation_twice(http: httpx.Client):
    operations = [method for methods in http.get("/openapi.json").json()["paths"].values() for method in methods]
    assert set(operations) == {"get", "post", "put", "delete"}


def test_head_is_logged_as_head(http: httpx.Client):
    line = request_line(lambda: http.head("/v1/models"))
    assert (line["method"], line["path"], line["status"]) == ("HEAD", "/v1/models", 200)


def test_a_path_cannot_forge_a_log_line(http: httpx.Client):
    line = request_line(lambda: http.get("/v1/models/x%0a%1b[2Jrequest%20status=200"))
    assert re.fullmatch(r"[ -~]*", line["path"])
