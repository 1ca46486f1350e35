"""How the server gives the page's files out."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from steering_server.api.settings import ApiSettings
from steering_server.page.files import page_files
from tests.api.keyed import Keyed, keyed
from tests.builders import build_model
from tests.serving import serving

LIMIT = 250_000
"""Most bytes of all files together."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with keyed(tmp_path_factory.mktemp("keyed")) as server:
        yield server


def test_all_files_together_are_small():
    sizes = {path: len(file.content) for path, file in page_files().items()}
    assert sizes["/"] > 0
    assert sum(sizes.values()) < LIMIT


@pytest.mark.parametrize("path", page_files())
def test_a_file_has_headers_that_keep_out_what_is_not_the_page(http: httpx.Client, path: str):
    response = http.get(path)
    assert response.status_code == 200
    assert response.content == page_files()[path].content
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert {each.strip() for each in policy.split(";")} >= {
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'",
        "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'",
    }  # fmt: skip
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_a_browser_that_has_the_file_is_told_so(http: httpx.Client):
    first = http.get("/page/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = http.get("/page/main.js", headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert http.get("/page/main.js", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nowhere.js", "/page/../files.py", "/page/%2e%2e/files.py", "/page/index.html"]
)
def test_nothing_else_is_given_out(http: httpx.Client, path: str):
    assert http.get(path).status_code == 404


def test_the_page_needs_no_key_and_nothing_else_is_open_with_it(server: Keyed):
    for path in page_files():
        assert httpx.get(server.url + path).status_code == 200
    for path in ("/page/nowhere.js", "/v1/models", "/docs"):
        assert httpx.get(server.url + path).status_code == 401


def test_the_page_is_given_out_only_where_it_is_wanted(tmp_path: Path):
    with serving(build_model("llama", dtype=torch.float32), tmp_path, settings=ApiSettings(page=False)) as url:
        assert {httpx.get(url + path).status_code for path in page_files()} == {404}


def test_the_page_is_no_part_of_the_description_of_the_api(http: httpx.Client):
    assert not {"/", "/page/{name}"} & http.get("/openapi.json").json()["paths"].keys()
