"""What goes wrong is said in plain words, and the page goes on from there."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest
import torch
from playwright.sync_api import Page, Route, expect

from steering_profiles.store import Catalogue
from steering_server.generation.backend import Backend
from steering_server.limits import EngineLimits
from tests.api.keyed import Keyed, keyed
from tests.builders import build_model, profiles_for
from tests.page.browser import open_page
from tests.serving import build_backend, living, serving

RUN = "#compare?prompt=abc&arm=baseline&arm=heads&max_tokens=4"


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with keyed(tmp_path_factory.mktemp("keyed")) as server:
        yield server


def secret(headers: dict[str, str]) -> str:
    return headers["authorization"].removeprefix("Bearer ")


def test_an_unknown_profile_is_named(page: Page, url: str):
    open_page(page, url, "#compare?prompt=abc&arm=baseline&arm=nope")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("There is no such profile.")
    expect(alert).to_contain_text("nope")


def test_a_name_in_a_link_is_never_html(page: Page, url: str):
    open_page(page, url, "#compare?prompt=abc&arm=baseline&arm=%3Cimg src=x onerror=document.title=1%3E")
    expect(page.get_by_role("alert")).to_contain_text("<img src=x")
    assert page.locator("main img").count() == 0
    assert page.title() == "Compare · steering-server"


def test_the_browser_refuses_to_make_html_of_text(page: Page, url: str):
    open_page(page, url)
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("() => { document.body.innerHTML = '<b>text</b>'; }")


def test_a_busy_server_says_so_and_the_button_tries_again(page: Page, tmp_path: Path):
    model = build_model("llama", dtype=torch.float32, context=8192)
    limits = EngineLimits(max_num_seqs=1, max_queue=2)
    with serving(model, tmp_path, profiles_for(model), limits=limits) as url:
        busy = {"prompt": "x", "max_tokens": 8000, "ignore_eos": True, "n": 2, "stream": True}  # one runs, one waits
        with httpx.stream("POST", f"{url}/v1/completions", json=busy, timeout=60) as running:
            chunks = running.iter_bytes()  # which ends the request when it is forgotten
            next(chunks)
            open_page(page, url, RUN)
            expect(page.get_by_role("alert")).to_contain_text("The server is busy.")
            expect(page.get_by_role("alert")).to_contain_text("Try again in")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".verdict")).to_contain_text("diverge")


def test_a_request_that_a_limit_forbids_is_explained(page: Page, url: str):
    open_page(page, url, RUN.replace("max_tokens=4", "max_tokens=99999"))
    expect(page.get_by_role("alert")).to_contain_text("The server does not accept this.")
    expect(page.get_by_role("alert")).to_contain_text("max_tokens")


def test_a_server_that_is_gone_is_told_and_asked_again(page: Page, url: str):
    open_page(page, url, RUN)
    expect(page.locator(".verdict")).to_contain_text("diverge")
    page.context.set_offline(True)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The connection to the server was lost.")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".verdict")).to_contain_text("diverge")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_stream_that_breaks_off_keeps_what_has_come(page: Page, url: str):
    sent: list[int] = []

    def cut(route: Route) -> None:
        events = route.fetch().text().split("\n\n")[:3]
        for event in events:
            sent.extend(json.loads(event.removeprefix("data: "))["choices"][0]["token_ids"])
        route.fulfill(status=200, content_type="text/event-stream", body="\n\n".join(events) + "\n\n")

    page.route("**/v1/completions", cut)
    open_page(page, url, RUN)
    expect(page.get_by_role("alert")).to_contain_text("What had arrived by then is shown.")
    expect(page.locator(".answer .token")).to_have_count(len(sent))
    assert sent


def test_the_page_waits_while_the_model_loads(page: Page, tmp_path: Path):
    model = build_model("llama", dtype=torch.float32)
    loading: Future[Backend] = Future()
    loading.set_running_or_notify_cancel()
    with living(loading) as (url, _):
        page.goto(url)
        expect(page.get_by_text("The model is being loaded.")).to_be_visible()
        loading.set_result(build_backend(model, Catalogue.open(tmp_path, shipped=False)))
        expect(page.get_by_role("tab", name="Compare")).to_be_visible()
        expect(page.locator("#model")).to_have_text("tiny-llama")


def test_a_key_is_asked_for_kept_for_the_tab_of_the_browser_and_sent_to_the_api_only(page: Page, keyed_server: Keyed):
    key = secret(keyed_server.add("reader"))
    sent: dict[str, str | None] = {}
    page.on("request", lambda request: sent.update({request.url: request.headers.get("authorization")}))
    page.goto(f"{keyed_server.url}/{RUN}")
    expect(page.get_by_role("dialog")).to_contain_text("This server answers only with an API key.")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator(".verdict")).to_contain_text("diverge")
    files = [header for url, header in sent.items() if "/page/" in url]
    assert files
    assert not any(files)
    assert sent[f"{keyed_server.url}/v1/completions"] == f"Bearer {key}"
    assert page.evaluate("Object.values(sessionStorage)") == [key]
    assert page.evaluate("Object.values(localStorage)") == []
    assert key not in page.url
    page.reload()
    expect(page.locator(".verdict")).to_contain_text("diverge")
    elsewhere = page.context.new_page()
    elsewhere.goto(keyed_server.url)
    expect(elsewhere.get_by_role("dialog")).to_be_visible()


def test_a_wrong_key_and_no_key_are_told(page: Page, keyed_server: Keyed):
    page.goto(keyed_server.url)
    page.get_by_label("Key", exact=True).fill("sk-steer-wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("dialog")).to_contain_text("The server does not take this key")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("The server asks for an API key.")
    page.get_by_role("button", name="Enter API key").last.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_code_reads_a_key_from_a_variable_and_never_shows_it(page: Page, keyed_server: Keyed):
    key = secret(keyed_server.add("coder"))
    page.goto(keyed_server.url)
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("button", name="Code", exact=True).click()
    for language in ("curl", "Python client", "openai client"):
        page.get_by_label(language).check(force=True)
        code = page.get_by_label("Code", exact=True).inner_text()
        assert "STEER_API_KEY" in code
        assert key not in code


def test_a_key_that_may_use_no_profile_sees_none(page: Page, keyed_server: Keyed):
    key = secret(keyed_server.add("plain", profiles=()))
    page.goto(f"{keyed_server.url}/#compare?prompt=abc&arm=baseline&arm=heads")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("alert")).to_contain_text("Your API key may not use that profile.")


def test_the_page_works_below_a_path_of_a_proxy(page: Page, url: str):
    """As behind a proxy that takes away the path under which it shows the server."""
    page.route(
        "**/steer/**", lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/steer/", "/")))
    )
    open_page(page, f"{url}/steer", RUN)
    expect(page.locator(".verdict")).to_contain_text("diverge")
