"""The tab Strength curve, on the real model."""

import math

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.page.browser import completions, open_page

PROMPT = "#print the string 123\nprint(str(str(str(123"
STRENGTHS = [-2 + step / 2 for step in range(11)]


def row(page: Page, name: str) -> list[str]:
    """What the list says of a continuation: its probability at the baseline, at the picked strength, and as fitted."""
    cells = page.get_by_role("row", name=name, exact=False).filter(has=page.locator(f"code:text-is('{name}')")).first
    return cells.locator("td").all_inner_texts()


def probability(url: str, token: str, arm: str) -> float | None:
    """The probability of the next token, as the API tells it; None where it is not among the 20 likeliest."""
    body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 20, "arms": [arm]}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
    logprob = answer["choices"][0]["logprobs"]["top_logprobs"][0].get(token)
    return None if logprob is None else math.exp(logprob)


def test_one_request_has_every_strength_and_the_curves_are_what_the_api_says(page: Page, real_url: str):
    open_page(page, real_url, "#curve")
    bodies = completions(page)
    page.get_by_role("button", name="Draw").click()
    expect(page.locator(".plot .series-0 circle").first).to_be_visible()
    (body,) = bodies
    assert [
        float(arm.partition("@")[2]) if "@" in arm else float(arm != "baseline") for arm in body["arms"]
    ] == STRENGTHS
    told = [probability(real_url, "))))", arm) for arm in body["arms"]]
    known = [strength for strength, one in zip(STRENGTHS, told, strict=True) if one is not None]
    assert known == STRENGTHS[-len(known) :], "20 tokens are likelier only where the profile is turned round"
    assert known[0] < 0
    expect(page.locator(".plot .series-0 circle")).to_have_count(len(known))
    page.get_by_label("Strength", exact=True).press("ArrowRight")
    expect(page.get_by_role("heading", name="At strength 1.5")).to_be_visible()
    shown = [float(text.rstrip("%")) / 100 for text in row(page, "))))")]
    expected = [probability(real_url, "))))", arm) for arm in ("baseline", "parentheses@1.5", "parentheses")]
    assert shown == pytest.approx(expected, abs=0.0006)


@pytest.mark.slow
def test_a_text_of_ones_own_is_followed_token_by_token(page: Page, real_url: str):
    open_page(page, real_url, f"#curve?{httpx.QueryParams(prompt=PROMPT, profile='parentheses', follow='text')}")
    page.get_by_label("Text").fill(r"))))\n")
    page.get_by_role("button", name="Draw").click()
    expect(page.locator(".plot .name")).to_have_text(["))))↵"])
    first = probability(real_url, "))))", "parentheses")
    assert first is not None
    (told,) = {float(text.rstrip("%")) / 100 for text in row(page, "))))↵")[1:]}
    assert 0 < told < first - 0.01


def test_the_answers_of_both_arms_are_followed_and_a_strength_is_picked_by_pointing(page: Page, real_url: str):
    parameters = httpx.QueryParams(prompt=PROMPT, profile="parentheses", follow="answers")
    open_page(page, real_url, f"#curve?{parameters}")
    expect(page.locator(".plot .name")).to_have_text(["))))", ")))"], use_inner_text=False)
    box = page.locator(".plot .series-0 circle").nth(5).bounding_box()  # strength 0.5
    assert box is not None
    page.mouse.click(box["x"] + 3, box["y"] + 40)
    page.get_by_role("button", name="Compare at 0.5").click()
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("group", name="Answer of parentheses@0.5").locator("[data-mark=first]")).to_have_text(
        "))))"
    )


def test_what_there_is_none_of_is_said(page: Page, real_url: str):
    open_page(page, real_url, "#curve?profile=parentheses&follow=text")
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no prompt yet.")
