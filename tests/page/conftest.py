"""Fixtures of the tests of the page: a browser, and a server of the real default model."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from steering_profiles.models import ModelSource, load_model
from tests.page.browser import SECONDS, chromium
from tests.serving import serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for the tests of a file; as long as it runs there is an event loop, which asyncio.run refuses."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def real_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the real default model with its shipped profiles; in float32, whose digits every CPU shares."""
    model = load_model(ModelSource(dtype="float32"))
    with serving(model, tmp_path_factory.mktemp("profiles"), shipped=True) as url:
        yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of a browser that knows nothing yet. Errors of its scripts fail the test."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors
