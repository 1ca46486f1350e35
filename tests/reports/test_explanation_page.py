"""The page of a report on a layer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steering_profiles.fitting import Explanation
from steering_profiles.fitting.argument_heads import ArgumentHead, ArgumentHeads
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.decomposition import Decomposition
from steering_profiles.fitting.explanation import AnswerLogit, LensToken
from steering_profiles.reports import write_explanation
from steering_profiles.reports.plots.explanation import argument_map
from tests.reports.reading import Page, markdown_tables
from tests.reports.samples import HOSTILE, MODEL

HEADS = tuple(
    ArgumentHead(Component("head", layer, head), 0.5 - 0.1 * layer - 0.01 * head, 0.25 * head)
    for layer in range(MODEL.layers)
    for head in range(MODEL.heads)
)
EXPLAINED = Explanation(
    task="things",
    seed=3,
    model=MODEL,
    layer=2,
    ridge=0.0,
    prompts={"train": 40, "dev": 20},
    decomposition=Decomposition(torch.tensor([0.5, -0.25, 0.0]), 0.125, torch.ones(6), torch.zeros(6), 0.75),
    r2={"train": 0.75, "dev": 0.5},
    top=(LensToken(" the", 3.21), LensToken("\n", 2.0)),
    bottom=(LensToken(HOSTILE, -4.5), LensToken(" Paris", -1.0)),
    answer_logits={
        "train": AnswerLogit((1.0, 1.0, 0.0), -1.0, -4.0, 2.0),
        "dev": AnswerLogit((0.0, 0.0, 0.0), 1.0, 0.0, 0.0),
    },
    argument_heads=ArgumentHeads(HEADS, 33, only_correct=True),
    left_out=(HOSTILE,),
)


def written(folder: Path, **changes: Any) -> tuple[Page, str]:
    explanation = replace(EXPLAINED, **changes)
    page, text = write_explanation(explanation, f"steer explain {HOSTILE}", folder)
    assert (page.name, text.name) == ("explain-things-layer-2.html", "explain-things-layer-2.md")
    return Page(page.read_text()), text.read_text()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str]:
    return written(tmp_path_factory.mktemp("explained"))


def test_the_page_has_all_figures(both: tuple[Page, str]):
    page, _ = both
    quality, coefficients, tokens, answer, best, all_heads = page.tables
    assert quality[1:] == [["train (in sample)", "40", "+0.7500"], ["dev", "20", "+0.5000"]]
    assert coefficients[1:] == [
        ["L2H0", "+0.500", "+1.00"],
        ["L2H1", "−0.250", "+1.00"],
        ["L2H2", "+0.000", "+0.00"],
        ["residual stream", "+0.125", "−1.00"],
    ]
    assert tokens[1][:2] == ["·the", "+3.21"]
    assert tokens[2] == ["↵", "+2.00", "·Paris", "−1.00"]
    assert answer[1:] == [
        ["heads", "+2.00 +22%", "+0.00 +0%"],
        ["residual stream", "−1.00 −11%", "+1.00 +100%"],
        ["intercept", "−4.00 −44%", "+0.00 +0%"],
        ["residual", "+2.00 +22%", "+0.00 +0%"],
        ["whole MLP", "−1.00", "+1.00"],
    ]
    assert best[1:3] == [["L0H0", "50.0", "0.0"], ["L0H1", "49.0", "25.0"]]
    assert (len(best), len(all_heads)) == (11, 13)
    assert "33 prompts that the model answers correctly" in page.text
    assert not page.unbalanced


def test_markdown_has_the_same_tables(both: tuple[Page, str]):
    page, text = both
    found = markdown_tables(text)
    for table, expected in zip(found, page.tables, strict=True):
        assert [len(row) for row in table] == [len(row) for row in expected]
    assert found[0] == page.tables[0]
    assert found[3] == page.tables[3]


def test_the_page_has_its_plots_and_tokens_are_escaped(both: tuple[Page, str]):
    page, text = both
    assert [tag for tag, _ in page.tags].count("figure") == 2
    assert "script" not in [tag for tag, _ in page.tags]
    assert "<script" not in text.replace("```", "")[: text.index("## Reproduce this report")]


def test_a_fit_that_explains_nothing_on_other_prompts_is_a_warning(both: tuple[Page, str], tmp_path: Path):
    warning = "its coefficients explain little"
    assert warning not in both[0].text
    assert warning in written(tmp_path, r2={"train": 0.3, "dev": -0.01})[0].text


def test_an_explanation_without_argument_heads_has_no_section_for_them(both: tuple[Page, str], tmp_path: Path):
    page, _ = written(tmp_path, argument_heads=None)
    assert "Argument-passing heads" in both[0].headings
    assert "Argument-passing heads" not in page.headings


def test_many_omissions_are_collapsed_and_few_are_not(both: tuple[Page, str], tmp_path: Path):
    page, _ = written(tmp_path, left_out=("one", "two", "three", "four"))
    assert "4 parts are left out" in page.text
    assert "three" in page.text
    assert f"Left out: {HOSTILE[:8]}" in both[0].text


def test_opacity_of_the_map_is_proportional_to_the_effect_and_increases_have_another_colour():
    heads = [replace(HEADS[0], effect=0.8), replace(HEADS[1], effect=0.2), replace(HEADS[2], effect=-0.2), *HEADS[3:]]
    found = ArgumentHeads(tuple(replace(head, effect=0.0) if i > 2 else head for i, head in enumerate(heads)), 9, True)
    image = argument_map(found, MODEL.layers, MODEL.heads).axes[0].images[0]
    cells = image.to_rgba(image.get_array())
    assert cells[0, 0, 3] == pytest.approx(1)
    assert [cells[1, 0, 3], cells[2, 0, 3]] == pytest.approx([0.25, 0.25], abs=0.01)
    assert cells[0, 1, 3] == pytest.approx(0, abs=0.01)
    assert tuple(cells[1, 0, :3]) == pytest.approx(tuple(cells[0, 0, :3]))
    assert tuple(cells[1, 0, :3]) != pytest.approx(tuple(cells[2, 0, :3]))
