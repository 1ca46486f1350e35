"""How the page looks, and who can use it: themes, narrow screens, keyboards, what axe-core finds; and its pictures."""

import os
import struct
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, expect

from tests.page.browser import open_page

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
REWRITE = "STEERING_PICTURES"
"""Variable that makes these tests write the pictures of the documents anew."""

PROMPT = "#print the string 123\nprint(str(str(str(123"
_ARMS = [("prompt", PROMPT), ("arm", "baseline"), ("arm", "parentheses"), ("max_tokens", 8)]
COMPARE = f"#compare?{httpx.QueryParams(_ARMS)}"
SHORT_CURVE = f"#curve?{httpx.QueryParams(prompt='1 + 1 =', profile='parentheses')}"
CURVE = f"#curve?{httpx.QueryParams(prompt=PROMPT, profile='parentheses')}"


def shown(page: Page, url: str, fragment: str) -> Page:
    """The page with an answer on it."""
    open_page(page, url, fragment)
    if fragment == COMPARE:
        expect(page.locator(".verdict")).to_contain_text("diverge")
    else:
        expect(page.locator(".curve-result")).to_be_visible()
    return page


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, page: Page) -> Page:
    page.emulate_media(color_scheme=request.param)
    return page


def brightness(page: Page) -> float:
    """Brightness of the ground, 0 for black to 1 for white."""
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    red, green, blue = (float(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))
    return (red + green + blue) / 3 / 255


@pytest.mark.parametrize("fragment", [COMPARE, SHORT_CURVE], ids=["compare", "curve"])
def test_axe_finds_no_fault(browser: Browser, real_url: str, fragment: str):
    context = browser.new_context(color_scheme="light", bypass_csp=True)  # axe-core is no script of the page
    page = shown(context.new_page(), real_url, fragment)
    for details in page.locator("main details:visible > summary").all():
        details.click()
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run()")["violations"]
    page.emulate_media(color_scheme="dark")
    found += page.evaluate("axe.run({ runOnly: ['color-contrast'] })")["violations"]
    context.close()
    assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found] == []


def test_the_theme_is_the_systems_until_one_is_chosen(themed: Page, url: str):
    page = open_page(themed, url)
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (brightness(page) < 0.5) == is_dark
    button = page.get_by_role("button", name="Theme")
    for name, dark in (("light", False), ("dark", True)):
        button.click()
        expect(button).to_have_text(f"Theme: {name}")
        assert (brightness(page) < 0.5) == dark
    page.reload()
    assert brightness(page) < 0.5
    button.click()
    assert (brightness(page) < 0.5) == is_dark


@pytest.mark.parametrize("fragment", [COMPARE, SHORT_CURVE], ids=["compare", "curve"])
def test_a_narrow_screen_needs_no_scrolling_to_the_side(page: Page, real_url: str, fragment: str):
    page.set_viewport_size({"width": 360, "height": 740})
    shown(page, real_url, fragment)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if fragment == COMPARE:
        first, second = (page.locator(".arm").nth(at).bounding_box() for at in (0, 1))
        assert first is not None
        assert second is not None
        assert second["y"] >= first["y"] + first["height"]


def test_everything_is_reached_with_the_keyboard(page: Page, real_url: str):
    open_page(page, real_url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("tab", name="Compare").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Strength curve")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Strength curve")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tabpanel", name="Compare")).to_be_visible()
    prompt = page.get_by_role("textbox", name="Prompt")
    prompt.focus()
    expect(prompt).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status").filter(has_text="Both arms have answered.")).to_have_text(
        "Both arms have answered. The arms diverge at token 1."
    )


def test_no_other_host_is_asked_and_all_that_is_loaded_is_small(page: Page, real_url: str):
    asked: list[str] = []
    sizes: list[int] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda response: sizes.append(len(response.body())) if "/v1/" not in response.url else None)
    open_page(page, real_url)
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.wait_for_load_state("networkidle")
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(real_url).netloc}
    assert len(asked) > 20
    assert 50_000 < sum(sizes) < 250_000


@pytest.mark.parametrize(("name", "fragment"), [("compare", COMPARE), ("curve", CURVE)], ids=["compare", "curve"])
def test_the_documents_have_a_picture_of_the_tab(page: Page, real_url: str, tmp_path: Path, name: str, fragment: str):
    page.set_viewport_size({"width": 1120, "height": 830})
    shown(page, real_url, fragment)
    if name == "compare":
        page.locator(".token[data-mark=first]").last.focus()
        expect(page.get_by_role("tooltip")).to_be_visible()
    path = (PICTURES if os.environ.get(REWRITE) else tmp_path) / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    page.screenshot(path=path, animations="disabled", full_page=name == "curve")
    assert f"](pictures/{name}.png)" in (PICTURES.parent / "page.md").read_text(encoding="utf-8")
    (taken, _), (kept, _) = size(path), size(PICTURES / f"{name}.png")
    assert taken == kept


def size(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG in pixels."""
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return width, height
