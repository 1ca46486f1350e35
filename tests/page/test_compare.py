"""The tab Compare, on the real model: what it shows is what the API says, and what it hands out works elsewhere."""

import contextlib
import io
import json
import math
import re
import subprocess
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.page.browser import completions, open_page

PROMPT = "#print the string 123\nprint(str(str(str(123"
ARMS = ("baseline", "parentheses")
EXAMPLES = [(profile, kind) for profile in ("parentheses", "factual-recall") for kind in ("best", "worst")]
"""As the page names them."""


def link(arms: tuple[str, ...] = ARMS, prompt: str = PROMPT, **parameters: Any) -> str:
    parameters = {"max_tokens": 4} | parameters
    return f"#compare?{httpx.QueryParams([('prompt', prompt), *(('arm', arm) for arm in arms), *parameters.items()])}"


def answer(page: Page, arm: str) -> Locator:
    return page.get_by_role("group", name=f"Answer of {arm}", exact=True)


def finished(page: Page) -> None:
    expect(page.locator(".verdict")).to_contain_text(re.compile("diverge|same answer"))


def complete(url: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "arms": [*ARMS]} | fields
    return httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"]


def test_four_parentheses_show_both_arms_and_where_they_part(page: Page, real_url: str):
    open_page(page, real_url)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(answer(page, "baseline").locator("[data-mark=first]")).to_have_text(")))")
    expect(answer(page, "parentheses").locator("[data-mark=first]")).to_have_text("))))")
    expect(page.locator(".verdict")).to_have_text("The arms diverge at token 1.")
    assert answer(page, "parentheses").locator("[data-mark=later]").count() > 0


def test_a_link_runs_at_once_in_one_request_and_shows_what_the_api_answers(page: Page, real_url: str):
    bodies = completions(page)
    open_page(page, real_url, link(max_tokens=8, stop="Output"))
    finished(page)
    (body,) = bodies
    assert body["arms"] == [*ARMS]
    for arm, choice in zip(ARMS, complete(real_url, max_tokens=8, stop=["Output"]), strict=True):
        assert "".join(answer(page, arm).locator(".token:not(.end)").all_text_contents()) == choice["text"]


def test_a_token_tells_its_probability_under_every_arm_and_what_else_the_arm_might_have_said(page: Page, real_url: str):
    open_page(page, real_url, link())
    finished(page)
    answer(page, "parentheses").locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    card = page.get_by_role("tooltip")
    expect(card).to_contain_text("parentheses, token 1 of 4")
    expect(page.locator(":focus")).to_have_attribute("aria-describedby", "token-card")
    for arm, choice in zip(ARMS, complete(real_url, max_tokens=1, logprobs=5), strict=True):
        probability = math.exp(choice["logprobs"]["top_logprobs"][0]["))))"])
        expect(card.locator(f".meters:first-of-type .arm-name:text-is('{arm}') + .meter + .number")).to_have_text(
            f"{100 * probability:.1f}%"
        )
    likeliest = [*choice["logprobs"]["top_logprobs"][0]]
    assert card.locator(".meters code").all_text_contents() == likeliest
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


def test_a_later_token_is_scored_under_the_other_arm(page: Page, real_url: str):
    open_page(page, real_url, link())
    finished(page)
    answer(page, "baseline").locator(".token").nth(2).hover()
    body = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "logprobs": 0, "arms": [*ARMS]}
    comparison = httpx.post(f"{real_url}/v1/completions", json=body, timeout=60).json()["comparison"]
    scored = math.exp(comparison["pairs"][0]["logprobs"]["baseline"]["parentheses"][2])
    told = page.get_by_role("tooltip").locator(".arm-name:text-is('parentheses') + .meter + .number").inner_text()
    assert float(told.rstrip("%")) / 100 == pytest.approx(scored, rel=0.1, abs=0.0006)


@pytest.mark.slow
def test_tokens_that_belong_together_share_a_row(page: Page, real_url: str):
    open_page(page, real_url, link(prompt="The capital of Pakistan is", arms=("baseline", "factual-recall")))
    finished(page)
    page.get_by_text("Token by token").click()
    rows = page.locator(".token-table tbody tr")
    texts = [row.locator("code").all_text_contents() for row in rows.all()]
    assert texts[0][0] != texts[0][1]
    assert [".", "."] in texts


def test_a_strength_that_is_let_go_is_asked_for(page: Page, real_url: str):
    open_page(page, real_url, link())
    finished(page)
    bodies = completions(page)
    slider = page.get_by_label("Strength of arm 2")
    slider.press("Home")  # the least strength
    expect(answer(page, "parentheses@-2")).to_contain_text(")")
    finished(page)
    assert [body["arms"] for body in bodies] == [["baseline", "parentheses@-2"]]
    assert "arm=parentheses%40-2" in page.url
    box = slider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 9, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    assert len(bodies) == 1, "as long as it is held nothing is asked"
    page.mouse.up()
    expect(answer(page, "parentheses@0.5")).to_contain_text(")")


def test_arms_are_added_up_to_four_and_removed(page: Page, real_url: str):
    open_page(page, real_url, link(max_tokens=1))
    finished(page)
    for count in (3, 4):
        page.get_by_role("button", name="Add an arm").click()
        expect(page.locator(".arm")).to_have_count(count)
        expect(page.locator(".arm [data-mark=first]").last).to_be_visible()
    expect(page.get_by_role("button", name="Add an arm")).to_be_disabled()
    page.get_by_label("Profile of arm 4").select_option("factual-recall")
    expect(answer(page, "factual-recall@1.5")).to_contain_text(")")
    page.get_by_role("button", name="Remove arm 3").click()
    expect(answer(page, "factual-recall@1.5")).to_contain_text(")")
    expect(page.locator(".arm")).to_have_count(3)


def test_a_copied_link_shows_the_same_elsewhere(page: Page, real_url: str):
    open_page(page, real_url)
    page.get_by_role("textbox", name="Prompt").fill("1 + 1 = <b>&amp; 🌟\n%")
    page.locator(".settings summary").click()
    page.get_by_label("Max tokens").fill("3")
    page.get_by_label("Temperature").fill("0.7")
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Run", exact=True).click()
    finished(page)
    texts = [answer(page, arm).text_content() for arm in ARMS]
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.url
    other = page.context.new_page()
    other.goto(copied)
    finished(other)
    expect(other.get_by_role("textbox", name="Prompt")).to_have_value("1 + 1 = <b>&amp; 🌟\n%")
    assert [answer(other, arm).text_content() for arm in ARMS] == texts


def copied_code(page: Page, language: str) -> str:
    page.get_by_role("button", name="Code", exact=True).click()
    page.get_by_label(language).check(force=True)
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    code: str = page.evaluate("navigator.clipboard.readText()")
    page.get_by_role("button", name="Close").click()
    return code


ODD = 'It\'s "odd": $HOME `id` \\n é 🌟\n'
"""A prompt with what shells and Python read otherwise."""


def run_python(code: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    return printed.getvalue()


def test_copied_code_gets_the_same_answers(page: Page, real_url: str):
    arms = ["baseline", "parentheses@0.5"]
    open_page(page, real_url, link(prompt=ODD, arms=tuple(arms), top_k=40, stop="\n\n\n", seed=3))
    finished(page)
    choices = complete(real_url, prompt=ODD, arms=arms, top_k=40, stop=["\n\n\n"], seed=3)
    script = ["bash", "-c", copied_code(page, "curl")]
    printed = json.loads(subprocess.run(script, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert [(one["arm"], one["text"]) for one in printed["choices"]] == [(one["arm"], one["text"]) for one in choices]
    for language in ("Python client", "openai client"):
        lines = run_python(copied_code(page, language)).splitlines()
        assert lines == [f"{one['arm']} {one['text']!r}" for one in choices]


def test_a_conversation_is_answered_and_its_code_runs(page: Page, real_url: str):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    open_page(page, real_url)
    page.get_by_label("Chat").check(force=True)
    page.get_by_role("textbox", name="Message 1").fill(messages[0]["content"])
    page.get_by_label("Role of message 1").select_option("system")
    page.get_by_role("button", name="Add a message").click()
    page.get_by_label("Role of message 2").select_option("user")
    page.get_by_role("textbox", name="Message 2").fill(messages[1]["content"])
    page.keyboard.press("Control+Enter")
    finished(page)
    body = {"messages": messages, "max_tokens": 8, "temperature": 0, "arms": [*ARMS]}
    choices = httpx.post(f"{real_url}/v1/chat/completions", json=body, timeout=60).json()["choices"]
    for choice in choices:
        shown = answer(page, choice["arm"]).locator(".token:not(.end)").all_text_contents()
        assert "".join(shown) == choice["message"]["content"]
    expected = [f"{each['arm']} {each['message']['content']!r}" for each in choices]
    assert run_python(copied_code(page, "Python client")).splitlines() == expected


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        pytest.param(*each, id="-".join(each), marks=() if each == ("parentheses", "worst") else pytest.mark.slow)
        for each in EXAMPLES
    ],
)
def test_an_example_shows_its_profile_at_its_best_or_worst(page: Page, real_url: str, profile: str, kind: str):
    open_page(page, real_url)
    page.get_by_role("button", name=f"{profile} at its {kind}").click()
    finished(page)
    examples = page.evaluate("import('/page/examples.js').then((module) => module.EXAMPLES)")
    assert [(each["profile"], each["kind"]) for each in examples] == EXAMPLES
    (example,) = [each for each in examples if (each["profile"], each["kind"]) == (profile, kind)]
    expect(page.locator(".example-says")).to_have_text(example["says"])
    right = {arm: (answer(page, arm).text_content() or "") for arm in ("baseline", profile)}
    # A token of more parentheses than the right one would begin like it.
    begins = {arm: re.match(re.escape(example["right"]) + r"(?!\))", text) is not None for arm, text in right.items()}
    assert begins == {"baseline": kind == "worst", profile: kind == "best"}


def test_generated_text_is_never_html(page: Page, real_url: str):
    tag = '<img src="x" onerror="document.title=1">\n'
    open_page(page, real_url, link(prompt=tag * 4, max_tokens=16))
    finished(page)
    assert "<img src=" in (answer(page, "baseline").text_content() or "")
    assert page.locator("main img").count() == 0
    assert page.title() == "Compare · steering-server"


def test_an_answer_that_comes_is_stopped(page: Page, real_url: str):
    open_page(page, real_url, link(max_tokens=400))
    expect(answer(page, "baseline").locator(".token").nth(2)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".verdict")).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_visible()
    assert answer(page, "baseline").locator(".token").count() < 400
