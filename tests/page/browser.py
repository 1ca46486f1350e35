"""Chromium, as Debian packages it, driven by Playwright."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

# Nothing but the page is to be loaded, so the browser's own traffic is switched off.
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SECONDS = 60
"""How long a test waits for what the page is to show, on a machine that does other things too."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium. Without it the test is skipped, but fails in CI."""
    program = shutil.which("chromium")
    if program is None:
        reason = "needs Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=_FLAGS)
        yield browser
        browser.close()


def open_page(page: Page, url: str, fragment: str = "") -> Page:
    """Load the page of the server at ``url`` and wait until it can be used."""
    page.goto(f"{url}/{fragment}")
    expect(page.locator("html[data-ready]")).to_be_attached()
    return page


def completions(page: Page) -> list[dict[str, Any]]:
    """The bodies of the completions that the page asks for from now on."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/completions"):
            bodies.append(json.loads(request.post_data or ""))

    page.on("request", note)
    return bodies
