"""The tab Data set: a file is run under arms, its flips are shown, and the report is taken away."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import FilePayload, Page, expect

from steering_ab.analysis.arms import arm_grade
from steering_ab.analysis.comparison import compare
from tests.builders import build_model, profiles_for
from tests.page.browser import open_page
from tests.serving import serving

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><b>"


@pytest.fixture(scope="module")
def tiny_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = build_model("llama", dtype=torch.float32)
    with serving(model, tmp_path_factory.mktemp("profiles"), profiles_for(model)) as url:
        yield url


def give(page: Page, name: str, content: str | bytes) -> None:
    """Choose a file."""
    payload = content if isinstance(content, bytes) else content.encode()
    page.locator("#dataset-file").set_input_files(FilePayload(name=name, mimeType="text/plain", buffer=payload))


def lines(*items: dict) -> str:
    return "\n".join(json.dumps(item) for item in items) + "\n"


def run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def downloaded(page: Page, kind: str) -> str:
    """Take the report away as a file."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=kind, exact=True).click()
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_a_csv_is_run_and_its_flips_and_reports_say_what_steer_ab_would(page: Page, real_url: str):
    prompts = [(f"#print the string {n}\nprint(str(str(str({n}", "))))") for n in (123, 456, 789, 907, 815, 333)]
    prompts += [(f"#print the string {n}\nprint(str({n}", "))") for n in (123, 456)]
    text = io.StringIO()
    csv.writer(text).writerows([("prompt", "expected", "max_tokens"), *((*each, 1) for each in prompts)])
    open_page(page, real_url, "#dataset")
    give(page, "brackets.csv", text.getvalue() + "only one cell\n")
    expect(page.get_by_text("8 items", exact=True)).to_be_visible()
    expect(page.get_by_text("1 line left out")).to_be_visible()
    page.get_by_text("Lines that are left out").click()
    expect(page.get_by_text("has 1 cells; the first line names 3 columns")).to_be_visible()
    run(page)
    expect(page.get_by_text("8 of 8 items", exact=True)).to_be_visible()
    expect(page.locator(".rates strong").first).to_have_text("25.0%")
    expect(page.locator(".rates strong").last).to_have_text("100.0%")
    expect(page.get_by_role("heading", name="6 items flipped")).to_be_visible()
    first = page.locator(".flip").first
    expect(first.locator(".question")).to_have_text(prompts[0][0])
    expect(first.locator("mark")).to_have_text(")")
    page.get_by_role("radio", name="Lost").check()
    expect(page.locator(".flip")).to_have_count(0)

    record = json.loads(downloaded(page, "JSON"))
    differences = [1.0] * 6 + [0.0] * 2
    ours = compare("normalised", "parentheses", "baseline", differences, bounded=True)
    (comparison,) = record["comparisons"]
    assert comparison["interval"] == pytest.approx(vars(ours.interval), abs=1e-9)
    assert (comparison["p_value"], comparison["wins"], comparison["losses"], comparison["ties"]) == (
        pytest.approx(ours.p_value), 6, 0, 2,
    )  # fmt: skip
    assert (comparison["verdict"], comparison["difference"]) == (ours.verdict, 0.75)
    rate = arm_grade("normalised", "baseline", [0.0] * 6 + [1.0] * 2, yes_no=True)
    assert record["arms"][0]["interval"] == pytest.approx(vars(rate.interval), abs=1e-9)
    assert [flip["line"] for flip in record["flips"]] != []
    assert record["unusable_lines"] == [{"line": 18, "reason": "has 1 cells; the first line names 3 columns"}]

    rows = list(csv.DictReader(io.StringIO(downloaded(page, "CSV"))))
    assert len(rows) == 16
    assert {(row["arm"], row["answer"]) for row in rows if row["expected"] == "))))"} == {
        ("baseline", ")))"), ("parentheses", "))))"),
    }  # fmt: skip
    assert sum(row["grade:normalised"] == "1" for row in rows) == 10
    markdown = downloaded(page, "Markdown")
    assert "| parentheses | 8 | 100.0% |" in markdown
    assert markdown.count("| gained |\n") == 6


def test_text_of_a_data_set_is_never_html(page: Page, tiny_url: str):
    open_page(page, tiny_url, "#dataset?arm=baseline&arm=heads&grader=contains&max_tokens=8")
    items = [
        {"prompt": HOSTILE, "expected": ["x" + HOSTILE, "e"], "id": HOSTILE, "tags": [HOSTILE]},
        *({"prompt": f"{HOSTILE}{n}", "expected": [chr(97 + n)]} for n in range(20)),
    ]
    give(page, f"{HOSTILE[:20]}.jsonl", lines(*items) + HOSTILE)
    page.get_by_text("The first item").click()
    page.get_by_text("Lines that are left out").click()
    run(page)
    expect(page.get_by_text("21 of 21 items", exact=True)).to_be_visible()
    expect(page.locator("pre.question").first).to_have_text(HOSTILE)
    assert page.locator("main img, main b").count() == 0
    assert "taken" not in page.title()
    markdown = downloaded(page, "Markdown")
    assert not re.search(r"<(?!br>)", markdown)


def test_a_run_is_stopped_and_goes_on(page: Page, tiny_url: str):
    open_page(page, tiny_url, "#dataset?arm=baseline&arm=heads&max_tokens=24&at_once=1")
    give(page, "many.jsonl", lines(*({"prompt": f"print({n}", "expected": ")"} for n in range(30))))
    run(page)
    expect(page.get_by_text(re.compile(r"^[1-9]\d* of 30 items"))).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text(re.compile("of 30 items · stopped"))).to_be_visible()
    record = json.loads(downloaded(page, "JSON"))
    assert 0 < record["arms"][0]["items"] < 30
    assert record["arms"][0]["items"] + len(record["unanswered_lines"]) == 30
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("30 of 30 items", exact=True)).to_be_visible()


def test_items_that_cannot_be_graded_or_are_refused_are_named(page: Page, tiny_url: str):
    open_page(page, tiny_url, "#dataset?arm=baseline&arm=heads&max_tokens=2")
    give(
        page,
        "some.jsonl",
        lines(
            {"prompt": "a", "expected": "b"},
            {"prompt": "a"},
            {"prompt": "a", "expected": "b", "grader": "judge"},
            {"prompt": "long " * 2000, "expected": "b"},
            {"messages": [{"role": "user", "content": "hi"}], "expected": "b"},
        ),
    )
    expect(page.get_by_text("3 items", exact=True)).to_be_visible()
    page.get_by_text("Lines that are left out").click()
    expect(page.get_by_text("line 2: has no expected, with which its answers are compared")).to_be_visible()
    expect(page.get_by_text("line 3: grader: is 'judge', which steer ab has")).to_be_visible()
    run(page)
    page.get_by_text("The server refused 1 item").click()
    expect(page.get_by_text(re.compile("^line 4: .*context"))).to_be_visible()


def test_a_file_that_is_no_data_set_says_why(page: Page, tiny_url: str):
    open_page(page, tiny_url, "#dataset")
    give(page, "list.json", '[{"prompt": "a"}]')
    expect(page.get_by_role("alert")).to_contain_text("write each of its objects on a line of its own")
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_disabled()


def test_a_server_that_is_lost_ends_the_run_in_words(page: Page, tiny_url: str):
    open_page(page, tiny_url, "#dataset?arm=baseline&arm=heads&max_tokens=2")
    give(page, "some.jsonl", lines(*({"prompt": f"a{n}", "expected": "b"} for n in range(8))))
    page.route("**/v1/completions", lambda route: route.abort())
    run(page)
    expect(page.get_by_role("alert")).to_contain_text("The connection to the server was lost.")
    page.unroute("**/v1/completions")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("8 of 8 items", exact=True)).to_be_visible()


def test_a_busy_server_is_asked_again(page: Page, tiny_url: str):
    open_page(page, tiny_url, "#dataset?arm=baseline&arm=heads&max_tokens=2&at_once=1")
    give(page, "some.jsonl", lines(*({"prompt": f"a{n}", "expected": "b"} for n in range(3))))
    refused = []

    def busy(route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(1)
        body = {"error": {"message": "the queue is full", "type": "rate_limit_error", "param": None, "code": None}}
        route.fulfill(status=429, json=body, headers={"retry-after": "0.1"})

    page.route("**/v1/completions", busy)
    run(page)
    expect(page.get_by_text("3 of 3 items", exact=True)).to_be_visible()
    assert refused
