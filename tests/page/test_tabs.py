"""The tabs Profiles, Experiments and Data set can be used in both themes, by ear, and on a narrow screen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.builders import build_model, build_profile
from tests.page.browser import open_page
from tests.page.test_dataset import give, lines
from tests.page.test_experiments import DEFINITION, run
from tests.serving import serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with something to see in every tab."""
    folder: Path = tmp_path_factory.mktemp("state")
    model = build_model("llama", dtype=torch.float32)
    heads = build_profile(model, "heads", heads=[(0, 1, 4.0), (1, 2, -2.0)], neurons=[(1, 3, 9.0)], intercept_scale=0.5)
    experiments = Experiments(Database(parse_database_url(sqlite_url(folder / "experiments.sqlite"))))
    with serving(model, folder / "profiles", [heads], experiments=experiments) as url:
        with httpx.Client(base_url=url, timeout=60) as http:
            run(http, batches=2)
        yield url


@pytest.fixture(scope="module", params=["profiles", "experiments", "dataset"])
def tab(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Page]:
    """Each of the tabs, which shows all that it can."""
    context = browser.new_context()
    page = context.new_page()
    if request.param == "profiles":
        open_page(page, url, "#profiles?name=heads&prompt=print(1&tokens=2&off=L0H1")
        expect(page.locator(".likelihoods .number")).to_have_count(3)
        page.get_by_role("button", name="Measure each component").click()
        expect(page.locator(".effect")).to_have_count(3)
        page.get_by_text("1 neuron", exact=True).click()
    elif request.param == "experiments":
        open_page(page, url, f"#experiments?name={DEFINITION['name']}")
        expect(page.locator(".chart")).to_have_count(2)
    else:
        open_page(page, url, "#dataset?arm=baseline&arm=heads&max_tokens=8&grader=contains")
        give(page, "some.jsonl", lines(*({"prompt": f"a{n}", "expected": chr(97 + n)} for n in range(26))) + "x\n")
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_text("26 of 26 items", exact=True)).to_be_visible()
        expect(page.locator(".flip").first).to_be_visible()
    yield page
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_keeps_people_from_a_tab(tab: Page, scheme: Literal["light", "dark"]):
    tab.emulate_media(color_scheme=scheme)
    found = Axe().run(tab).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"][:150] for node in each["nodes"]]) for each in serious] == []


def test_a_tab_fits_a_narrow_screen(tab: Page):
    tab.set_viewport_size({"width": 380, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
