"""The tab Profiles, on the real model and on profiles with components of every kind."""

import json
import re
from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Page, expect

from steering_profiles.evaluation import SideEffects, TextEffect
from steering_profiles.evaluation.side_effects import LastWordsEffect, PairsEffect, PairsEffects
from steering_profiles.schema import Provenance
from steering_profiles.store import Catalogue
from tests.api.keyed import keyed
from tests.builders import build_model, build_profile
from tests.page.browser import open_page
from tests.serving import serving

MEASURED = Provenance(
    tool_version="0",
    command="steer fit mine",
    task="mine",
    seed=0,
    side_effects=SideEffects(
        (TextEffect("prose", 100, 2.0, 2.0, 1.0),),
        LastWordsEffect(470, (0.3, 0.31), (-0.01, 0.03), (3.0, 3.0), (-0.01, 0.01)),
        PairsEffects(
            PairsEffect("all phenomena", 96, (0.9, 0.9), (-0.01, 0.01), (4.0, 4.0), (-0.1, 0.1)),
            (PairsEffect("articles", 48, (1.0, 0.9), (-0.2, -0.02), (4.0, 4.0), (-0.1, 0.1)),),
        ),
    ).record(),
)
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def mixed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = build_model("llama", dtype=torch.float32)
    mixed = build_profile(
        model,
        "mixed",
        heads=[(0, 1, 4.0), (1, 2, -2.0)],
        neurons=[(1, 3, 9.0), (1, 4, 9.0), (2, 5, 9.0)],
        self_only_attention=0.5,
        intercept_scale=0.9,
    ).model_copy(update={"description": HOSTILE, "provenance": MEASURED})
    bracket, late = {"ends_with": ["("]}, {"from_position": 3}
    several = build_profile(model, "several", heads=[(0, 1, 1.5, bracket), (0, 1, 0.25, late), (1, 2, -2.0, late)])
    stacked = build_profile(model, "stacked", final_layers=[(0.25, 0.5, bracket), (0.75, -0.9, late)])
    with serving(model, tmp_path_factory.mktemp("profiles"), [mixed, several, stacked]) as url:
        yield url


def switch(page: Page, name: str) -> None:
    page.locator(f"[data-name='{name}']").click()


def answers(page: Page) -> list[str]:
    return page.locator(".profile-detail .answer").all_inner_texts()


def test_the_map_has_every_head_that_is_scaled_and_the_figures_of_the_fit(page: Page, real_url: str):
    open_page(page, real_url, "#profiles?name=parentheses")
    cells = page.locator("button.cell")
    scaled = {head.component for head in Catalogue.open()["parentheses"].profile.heads}
    expect(cells).to_have_count(len(scaled))
    assert sorted(cell.get_attribute("data-name") or "" for cell in cells.all()) == sorted(scaled)
    expect(page.get_by_role("button", name="L27H7: head 7 of layer 27, scaled by 1.5")).to_have_text("1.5")
    detail = page.locator(".profile-detail")
    expect(detail).to_contain_text("30 layers of 9 heads and 1,536 neurons")
    row = detail.get_by_role("row", name=re.compile(r"^\)\)\)\) 0\.0 100\.0"))
    expect(row).to_be_visible()
    expect(
        detail.get_by_role(
            "row", name=re.compile(r"^prose 8,583 3\.3064 3\.3064 \+0\.00% 34\.7% → 34\.7% 100\.0% 0\.0000")
        )
    ).to_be_visible()


def test_last_words_and_minimal_pairs_have_a_table_that_begins_with_the_largest_loss(page: Page, mixed_url: str):
    open_page(page, mixed_url, "#profiles?name=mixed")
    tables = page.locator(".figures table")
    expect(tables).to_have_count(2)
    texts, shares = (table.locator("tbody tr") for table in tables.all())
    expect(texts).to_have_count(1)
    assert [row.split("\t") for row in shares.all_inner_texts()] == [
        ["Grammar: articles", "48 pairs", "100.0%", "90.0%", "−20.0 to −2.0"],
        ["Grammar, all", "96 pairs", "90.0%", "90.0%", "−1.0 to +1.0"],
        ["Last words of sentences", "470 words", "30.0%", "31.0%", "−1.0 to +3.0"],
    ]
    expect(page.locator(".figures .worse")).to_have_text("90.0%")


def test_components_are_switched_off_and_the_answer_changes_and_the_link_has_it_all(page: Page, real_url: str):
    open_page(page, real_url, "#profiles?name=parentheses")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".likelihoods .number")).to_have_count(2)
    assert answers(page) == [")))", "))))"]
    for name in ("L11H2", "L22H1", "L24H6", "L24H7", "L26H6", "L28H3"):
        switch(page, name)
    expect(page.locator(".likelihoods .number")).to_have_count(3)
    expect(page.get_by_role("group", name="Answer of parentheses without 6 components")).to_have_text(")))")
    expect(page.get_by_text("6 of 20 left out: L11H2, L22H1, L24H6, L24H7, L26H6, L28H3")).to_be_visible()
    shown = page.locator(".likelihoods .number").all_inner_texts()
    likely = [float(text.removesuffix("%")) for text in shown]
    assert likely[1] > 80 > 40 > likely[2] > likely[0] > 10
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator(".likelihoods .number")).to_have_text(shown)
    expect(page.locator("[data-name=L11H2]")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Switch all off").click()
    expect(page.get_by_text("20 of 20 left out")).to_be_visible()
    expect(page.get_by_role("group", name="Answer of parentheses without all of its components")).to_have_text(")))")


@pytest.mark.slow
def test_each_component_is_measured_alone_and_the_one_that_matters_most_comes_first(page: Page, real_url: str):
    open_page(page, real_url, "#profiles?name=parentheses")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("button", name="Measure each component").click()
    expect(page.locator(".effect")).to_have_count(20)
    first = page.locator(".effect").first
    expect(first.locator("code")).to_have_text("L28H3")
    expect(first.locator(".number")).to_have_text(re.compile(r"^−1\d\.\d points$"))


def test_the_report_of_the_fit_is_a_page_that_runs_nothing(page: Page, real_url: str):
    open_page(page, real_url, "#profiles?name=parentheses")
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Report of the fit").click()
    report = opening.value
    expect(report.get_by_role("heading", level=1)).to_contain_text("parentheses")
    assert report.url == f"{real_url}/v1/profiles/parentheses/report"


def test_compare_takes_the_prompt_along(page: Page, real_url: str):
    open_page(page, real_url, "#profiles?name=parentheses")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("group", name="Answer of parentheses").locator("[data-mark=first]")).to_have_text("))))")


def test_neurons_and_the_final_layer_are_switched_too(page: Page, mixed_url: str):
    open_page(page, mixed_url, "#profiles?name=mixed&prompt=print(1&tokens=2")
    expect(page.locator(".likelihoods .number")).to_have_count(2)
    page.get_by_role("button", name="2 neurons of layer 1").click()
    page.get_by_text("3 neurons", exact=True).click()
    expect(page.locator("[data-name=L1N3]")).to_have_attribute("aria-pressed", "false")
    switch(page, "L1N4")
    expect(page.get_by_role("button", name="2 neurons of layer 1")).to_have_attribute("aria-pressed", "mixed")
    switch(page, "final_layer.intercept")
    with page.expect_request(lambda request: "L1H2" in (request.post_data or "")) as asked:
        switch(page, "L1H2")
    (left,) = [arm["except"] for arm in json.loads(asked.value.post_data or "")["arms"] if "except" in arm]
    assert left == ["L1H2", "L1N3", "final_layer.intercept"]
    expect(page.get_by_role("group", name="Answer of mixed without 3 components")).to_be_visible()


def test_a_head_that_is_scaled_under_several_conditions_is_one_cell_with_all_of_its_scales(page: Page, mixed_url: str):
    open_page(page, mixed_url, "#profiles?name=several&prompt=print(1&tokens=2")
    expect(page.locator("button.cell")).to_have_count(2)
    name = "L0H1: head 1 of layer 0, scaled by 1.5 and 0.25 under different conditions"
    expect(page.get_by_role("button", name=name)).to_have_text("0.25")
    expect(page.locator(".likelihoods .number")).to_have_count(2)
    with page.expect_request(lambda request: "L0H1" in (request.post_data or "")) as asked:
        switch(page, "L0H1")
    (left,) = [arm["except"] for arm in json.loads(asked.value.post_data or "")["arms"] if "except" in arm]
    assert left == ["L0H1"]


def test_final_layers_under_several_conditions_are_one_switch_a_part_with_all_values(page: Page, mixed_url: str):
    open_page(page, mixed_url, "#profiles?name=stacked&prompt=print(1&tokens=2")
    changes = "self-only attention 0.25, intercept x 0.5 where .*; self-only attention 0.75, intercept x -0.9 where .*"
    expect(page.locator(".facts dd").first).to_have_text(re.compile(changes))
    share = page.locator("[data-name='final_layer.own_attention']")
    expect(share).to_have_text("self-only attention 0.75")
    expect(share).to_have_attribute(
        "title", "self-only attention of the final layer, 0.25 and 0.75 under different conditions"
    )
    expect(page.locator("[data-name='final_layer.intercept']")).to_have_text("intercept ×−0.9")
    expect(page.locator(".likelihoods .number")).to_have_count(2)
    with page.expect_request(lambda request: "final_layer.intercept" in (request.post_data or "")) as asked:
        switch(page, "final_layer.intercept")
    (left,) = [arm["except"] for arm in json.loads(asked.value.post_data or "")["arms"] if "except" in arm]
    assert left == ["final_layer.intercept"]


def test_text_of_a_profile_is_never_html(page: Page, mixed_url: str):
    open_page(page, mixed_url, "#profiles")
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    assert page.locator("main img").count() == 0
    assert "taken" not in page.title()


def test_a_profile_that_is_not_there_is_an_error_in_words(page: Page, mixed_url: str):
    open_page(page, mixed_url, "#profiles?name=nothing")
    expect(page.get_by_role("alert")).to_contain_text("There is no such profile.")


def test_with_a_key_the_report_is_saved(page: Page, tmp_path):
    with keyed(tmp_path) as server:
        (tmp_path / "profiles" / "heads.html").write_text("<title>heads</title>")
        secret = server.add("me")["authorization"].removeprefix("Bearer ")
        page.goto(f"{server.url}/#profiles?name=heads")
        page.get_by_label("Key", exact=True).fill(secret)
        page.get_by_role("button", name="Use this key").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Save the report").click()
        assert waiting.value.suggested_filename == "heads.html"
