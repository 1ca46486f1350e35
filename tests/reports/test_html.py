"""The HTML page: self-contained, safe with untrusted text, with all figures of the report."""

import re
from dataclasses import replace

import pytest

from steering_profiles.evaluation import Accuracy
from steering_profiles.evaluation.side_effects import (
    LastWordsEffect,
    PairsEffect,
    PairsEffects,
    SideEffects,
    TextEffect,
)
from steering_profiles.reports import Report, render_html
from steering_profiles.store import content_hash
from tests.reports.reading import Page
from tests.reports.samples import HOSTILE, accuracy, profile, whole


def test_a_page_is_balanced_html(page: Page):
    assert page.unbalanced == []
    assert page.source.startswith("<!DOCTYPE html>")


def test_a_page_loads_nothing_else(page: Page):
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "iframe", "object", "img"}]
    references = [
        value for _, attributes in page.tags for name, value in attributes.items()
        if name in {"src", "href", "xlink:href"} and value
    ]  # fmt: skip
    assert references  # clip paths and pictures within the page
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in references)
    assert "@import" not in page.source
    assert set(re.findall(r"url\((.)", page.source)) <= {"#"}


def test_ids_are_unique(page: Page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_reference_within_the_page_has_a_target(page: Page):
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert set(re.findall(r'(?:url\(|xlink:href="|aria-labelledby=")#?([\w-]+)["\)]', page.source)) <= ids


def test_every_plot_has_a_title_and_a_caption(page: Page):
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 7
    assert all(attributes["role"] == "img" for attributes in plots)
    titles = dict(re.findall(r'<title id="([\w-]+)">([^<]+)</title>', page.source))
    assert all(titles[attributes["aria-labelledby"] or ""] for attributes in plots)
    assert page.source.count("<figcaption>") == len(plots)


def test_a_style_of_a_plot_stays_in_the_plot(page: Page):
    assert page.source.count("<style") == 1


def test_text_of_a_plot_takes_the_colours_of_the_page(page: Page):
    assert "var(--ink)" in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL)[0]
    assert not re.search(r"#010203|#040506|#070809", page.source)


def test_no_label_is_written_as_a_formula(page: Page):
    assert "mathdefault" not in page.source


def test_hostile_text_stays_text(hostile_page: Page):
    assert hostile_page.unbalanced == []
    assert "script" not in {tag for tag, _ in hostile_page.tags}
    assert hostile_page.text.count("<script>alert(1)</script>") > 20


def test_unprintable_characters_are_escaped(hostile_page: Page):
    assert not re.search(r"[\u202e\x00\x1b\ud800]", hostile_page.source)
    assert r"\u202e\x1b[31m" in hostile_page.text
    assert "\\ud800" in hostile_page.text


def test_the_headline_has_test_accuracy_with_intervals(page: Page):
    # Wilson's 95% intervals, from R: prop.test(33, 50, correct = FALSE) and so on.
    assert page.tables[0] == [
        ["sub-task", "prompts", "without", "with", "change"],
        [")", "50", "100.0 [92.9, 100.0]", "100.0 [92.9, 100.0]", "0.0"],
        ["))", "50", "66.0 [52.2, 77.6]", "98.0 [89.5, 99.6]", "+32.0"],
        [")))", "50", "2.0 [0.4, 10.5]", "94.0 [83.8, 97.9]", "+92.0"],
        ["all", "150", "56.0 [48.0, 63.7]", "97.3 [93.3, 99.0]", "+41.3"],
    ]


def test_every_prompt_set_is_shown_before_and_after_the_largest_loss_first(page: Page):
    assert page.tables[1] == [
        ["prompt set", "prompts", ")", "))", ")))", "all"],
        ["5 digits", "150", "100.0 → 98.0 −2.0 worse", "100.0 → 100.0", "100.0 → 100.0", "100.0 → 99.3 −0.7 worse"],
        ["test", "150", "100.0 → 100.0", "66.0 → 98.0 +32.0", "2.0 → 94.0 +92.0", "56.0 → 97.3 +41.3"],
        ["other", "20", "15.0 → 85.0 +70.0", "–", "–", "15.0 → 85.0 +70.0"],
    ]


def test_a_lower_accuracy_is_named_in_the_headline(page: Page):
    assert "Accuracy is lower with the profile, in percentage points: 5 digits on ) −2.0." in page.text


def test_an_nll_increase_above_the_limit_is_a_warning(page: Page):
    assert "Warning: the NLL of other text increases by more than 1%: code +15.81%." in page.text
    header, *rows = page.tables[3]
    assert header == ["figure", "of", "count", "without", "with", "change", "95% interval"]
    code, prose = ("code", "2345 tokens"), ("prose", "1234 tokens")
    assert rows == [
        ["next token right", *code, "60.0%", "58.5%", "−1.50 points worse", "−2.00..−1.00 points"],
        ["NLL per token", *code, "2.1000", "2.4321", "+15.81% above 1%", "–"],
        ["NLL per token", *prose, "3.1234", "3.1301", "+0.21%", "–"],
        ["same likeliest next token", *prose, "–", "98.7%", "–", "–"],
        ["KL divergence per token", *code, "–", "0.0420", "–", "0.0400..0.0440"],
        ["same likeliest next token", *code, "–", "87.6%", "–", "–"],
    ]
    assert "1 of 1 figures with a 95% interval are worse by more than it, 0 better." in page.text


def test_last_words_and_minimal_pairs_that_lose_are_a_warning():
    words = LastWordsEffect(470, (0.3, 0.27), (-0.05, -0.01), (3.0, 3.1), (0.01, 0.05))
    pairs = PairsEffects(
        PairsEffect("all phenomena", 96, (0.9, 0.9), (-0.01, 0.01), (4.0, 4.05), (0.02, 0.08)),
        (
            PairsEffect("articles", 48, (1.0, 0.9), (-0.2, -0.02), (4.0, 4.1), (-0.1, 0.1)),
            PairsEffect("word order", 48, (0.8, 0.9), (0.02, 0.2), (4.0, 4.1), (-0.1, 0.1)),
        ),
    )
    page = Page(render_html(Report(profile(), "x", side_effects=SideEffects((), words, pairs))))
    assert "Warning: less is right, by more than 1 point: minimal pairs, articles −10.0 points; last words" in page.text
    (_, *rows) = page.tables[0]
    good = "good sentence likelier"
    assert rows == [
        [good, "articles", "48 pairs", "100.0%", "90.0%", "−10.00 points worse", "−20.00..−2.00 points"],
        ["NLL per last word", "prose", "470 words", "3.0000", "3.1000", "+3.33% worse", "+1.00%..+5.00%"],
        ["last word of a sentence right", "prose", "470 words", "30.0%", "27.0%", "−3.00 points worse",
         "−5.00..−1.00 points"],
        [good, "all phenomena", "96 pairs", "90.0%", "90.0%", "+0.00 points", "−1.00..+1.00 points"],
        [f"{good} by", "all phenomena", "96 pairs", "4.0000", "4.0500", "+0.0500", "+0.0200..+0.0800"],
        [good, "word order", "48 pairs", "80.0%", "90.0%", "+10.00 points", "+2.00..+20.00 points"],
    ]  # fmt: skip


def test_pass_at_1_comes_with_how_coarse_it_is():
    pooled = tuple(Accuracy({"HumanEval": (solved, 164)}) for solved in (7, 6))
    page = Page(render_html(Report(profile(), "x", pass_at_1=pooled)))
    assert page.tables[0][1][:2] == ["HumanEval", "164"]
    assert "Pass@1 is coarse: 7 of 164 problems are solved without the profile and 6 with it" in page.text


def test_side_effects_within_the_limit_are_no_warning():
    report = Report(profile(), "x", side_effects=SideEffects((TextEffect("prose", 10, 2.0, 2.01, 0.9),)))
    page = Page(render_html(report))
    assert "Warning" not in page.text
    assert "The largest NLL increase of other text is +0.50% (prose), within the limit of 1%." in page.text


def test_methods_stand_side_by_side(page: Page):
    assert page.tables[2] == [
        ["method", "components", "scale", ")", "))", ")))", "test", "held-out formats", "NLL increase"],
        ["stepwise", "2", "1.5", "100.0", "98.0", "94.0", "97.3 [93.3, 99.0]", "99.3 [96.3, 99.9]", "+0.43%"],
        ["random", "2", "1.5", "98.0", "40.0", "0.0", "46.0 [38.2, 54.0]", "–", "–"],
    ]


def test_the_search_is_shown_step_by_step_and_point_by_point(page: Page):
    assert "validation set of 90 prompts from dev and the other fitting formats: dev 60, 5 digits 30." in page.text
    assert page.tables[4][0][3:6] == ["validation errors", "of", "NLL increase"]
    assert page.tables[4][1:] == [
        ["0", "0", "0", "29", "90", "+0.00%", ""],
        ["1", "1", "0.5", "11", "90", "+0.21%", ""],
        ["2", "2", "1.25", "2", "90", "+0.43%", "chosen"],
    ]
    assert page.tables[5] == [
        ["components", "×1.5", "×2"],
        ["0 (unsteered)", "67.8", "67.8"],
        ["1", "77.8", "44.4 of 45"],
        ["2", "97.8", "68.9 of 45"],
    ]


def test_scaled_components_come_in_the_order_of_the_ranking(page: Page):
    ranking = whole().ranking
    assert ranking is not None
    rows = page.tables[6]
    assert rows[0] == ["component", "scale", "rank", "sub-tasks", *ranking.groups, "precision", "recall", "F1"]
    for row, place in ((rows[1], 5), (rows[2], 9)):
        ranked = ranking.components[place]
        assert row == [
            str(ranked.component), f"×{ranked.scale}", str(place + 1), str(ranking.generalisability(ranked)),
            *[f"{100 * share:.1f}" for share in ranked.accuracy],
            f"{ranked.precision:.2f}", f"{ranked.recall:.2f}", f"{ranked.f1:.2f}",
        ]  # fmt: skip
    assert rows[3] == ["L2N7", "×1.75"] + ["–"] * 8
    assert [row[0] for row in page.tables[7][1:]] == [str(ranked.component) for ranked in ranking.components]


def test_attention_from_the_last_token_is_in_a_table(page: Page):
    pattern = whole().attention[0]
    order = pattern.weights[-1].argsort()[::-1]
    shown = ["#", "·print", "↵", "$x$"]
    assert page.tables[8][1] == ["L3H0", *[f"{shown[i]} #{i} {100 * pattern.weights[-1][i]:.1f}%" for i in order]]


def test_the_provenance_is_complete(page: Page):
    facts = dict(page.tables[9][1:] + page.tables[10][1:])
    assert facts["content hash"] == content_hash(profile())
    assert facts["fitted by"] == "steer fit sample --out there"
    assert facts["splits"] == "train 350, dev 151, test 152"
    assert (facts["seed"], facts["task"], facts["tool version"]) == ("41", "sample-task", "9.8.7")
    assert (facts["chosen: k"], facts["test: before"], facts["grid: metric"]) == ("2", ") 12.3", "f1")
    assert facts["fingerprint"] == "sha256:0"
    assert "  [1, 2.0, 20, 45]" in page.text  # the recorded points, collapsed


def test_the_page_ends_with_the_command_that_reproduces_it(page: Page):
    assert page.text.rstrip().endswith("steer evaluate sample --report there")


@pytest.mark.parametrize(
    ("field", "heading"),
    [
        ("side_effects", "Side effects"),
        ("comparison", "Comparison with other methods"),
        ("attention", "Attention patterns"),
        ("accuracy", "Generalisation"),
    ],
)
def test_a_section_without_data_is_left_out(page: Page, field: str, heading: str):
    empty = None if field == "side_effects" else {} if field == "accuracy" else ()
    others = {"ranking": None, "grid": (), "path": ()}
    without = Page(render_html(replace(whole(**others), **{field: empty})))
    assert heading in page.headings
    assert heading not in without.headings
    assert len(without.headings) == len(Page(render_html(whole(**others))).headings) - 1


def test_a_profile_alone_makes_a_page():
    bare = Report(profile(heads=(), neurons=(), provenance=None), "steer evaluate it")
    page = Page(render_html(bare))
    assert page.headings == ["Provenance", "Reproduce this report"]
    assert "The profile changes nothing in some-model." in page.text


def test_many_sub_tasks_stand_below_each_other():
    groups = tuple(f"group {i}" for i in range(30))
    counts = accuracy(*range(30), groups=groups), accuracy(*[50] * 30, groups=groups)
    page = Page(render_html(Report(profile(), "x", {"test": counts, "more": counts})))
    assert page.tables[1][0] == ["prompt set", "sub-task", "prompts", "accuracy"]
    assert ["more", "group 7", "50", "14.0 → 100.0 +86.0"] in page.tables[1]


def test_the_strength_is_named_if_it_is_not_1():
    for strength, said in ((0.5, "0.5"), (1e-07, "1e-07"), (2.0000001, "2.0000001")):
        assert f"at strength {said}." in render_html(Report(profile(), "x", strength=strength))
    assert "at strength" not in render_html(Report(profile(), "x"))


def test_hostile_text_is_shown_unchanged(hostile_page: Page):
    assert (
        hostile_page.text.rstrip()
        .split("\n```")[0]
        .endswith(HOSTILE[:60] + HOSTILE[60:].replace("\u202e\x1b", r"\u202e\x1b"))
    )
