"""Results: what is compared, what the requirements find, and what the reports show."""

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from steering_ab import Result, ab
from steering_ab.errors import RequirementError
from steering_ab.report.words import marked


def simulated(rates: dict[str, float], items: int = 400, *, seed: int = 0, **options: Any) -> Result:
    """Compare arms that are right at these rates, on the same items, of which half have the tag ``odd``."""
    draws = random.Random(seed)
    luck = [draws.random() for _ in range(items)]
    rows = [{"prompt": f"<{n}>", "expected": "yes", "tags": ["odd" if n % 2 else "even"]} for n in range(items)]
    answers = {arm: ["yes" if value < rate else "no way" for value in luck] for arm, rate in rates.items()}
    return ab(rows, answers=answers, **options)


def test_a_gain_is_found():
    result = simulated({"baseline": 0.5, "steered": 0.6})
    (comparison,) = result.comparisons
    assert comparison.verdict == "higher"
    assert comparison.wins == round(comparison.difference * 400)
    assert comparison.losses == 0
    assert comparison.interval.low > 0
    assert result.check("steered - baseline >= 0.05").holds
    assert not result.check("steered - baseline >= 0.2").holds
    assert not result.check("baseline - steered >= 0").holds
    assert result.check("steered >= 0.5").holds
    assert "lower end of its 95% interval" in str(result.check("steered - baseline >= 0.2"))


def test_an_arm_compared_with_itself_shows_nothing():
    result = simulated({"baseline": 0.5, "the same": 0.5})
    (comparison,) = result.comparisons
    assert (comparison.verdict, comparison.p, comparison.wins, comparison.losses) == ("not shown", 1, 0, 0)
    assert comparison.interval.low < 0 < comparison.interval.high
    assert comparison.interval.low == pytest.approx(-comparison.interval.high)


def test_an_interval_of_scores_that_all_differ_by_the_same_is_said_to_tell_nothing():
    said = "All 40 items differ by the same, so the interval has no width and tells nothing of other items."
    assert said in simulated({"a": 0.5, "b": 0.5}, 40, graders=["length"]).to_markdown()
    assert said not in simulated({"a": 0.5, "b": 0.6}, 40, graders=["length"]).to_markdown()
    assert said not in simulated({"a": 0.5, "b": 0.5}, 40).to_markdown()


def test_tags_are_compared_with_holms_correction():
    result = simulated({"baseline": 0.5, "steered": 0.6})
    assert [each.tag for each in result.tagged] == ["even", "odd"]
    plain = [result.compare("steered", "baseline", tag=tag) for tag in ("even", "odd")]
    assert all(each is not None and each.items == 200 for each in plain)
    smaller, larger = sorted(each.p_value for each in plain if each is not None)
    assert sorted(each.p for each in result.tagged) == pytest.approx([2 * smaller, max(larger, 2 * smaller)])


def test_more_than_two_arms_are_compared_in_pairs_with_correction():
    result = simulated({"a": 0.5, "b": 0.55, "c": 0.6})
    assert [(each.reference, each.arm) for each in result.comparisons] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(each.adjusted_p is not None for each in result.comparisons)
    with pytest.raises(RequirementError, match="no arm 'd'; there are: a, b, c"):
        result.compare("d", "a")


def test_scores_are_compared_by_bootstrap_and_permutation():
    result = simulated({"baseline": 0.5, "steered": 0.6}, graders=["length"])
    (comparison,) = result.comparisons
    assert (comparison.is_rate, comparison.verdict) == (False, "lower")
    assert comparison.interval.low < comparison.difference < comparison.interval.high < 0
    assert result.check("steered - baseline <= 0").holds
    assert comparison.items_needed(comparison.difference) < 400


def test_the_design_says_how_many_items_a_difference_needs():
    (comparison,) = simulated({"baseline": 0.5, "steered": 0.52}, items=100).comparisons
    assert comparison.detectable > 0.05
    assert comparison.items_needed(0.05) > 100
    assert comparison.items_needed(comparison.detectable) <= 101


def test_flips_begin_with_what_got_worse():
    rows = [{"prompt": str(n), "expected": "yes"} for n in range(6)]
    answers = {"a": ["no", "yes", "yes", "no", "no", "yes"], "b": ["yes", "yes", "no", "yes", "no", "yes"]}
    result = ab(rows, answers=answers)
    assert [(flip.item.id, flip.difference) for flip in result.flips()] == [
        ("line-3", -1),
        ("line-1", 1),
        ("line-4", 1),
    ]


def test_the_report_is_written_in_four_formats(tmp_path: Path):
    result = simulated({"baseline": 0.5, "steered": 0.6}, require=["steered - baseline > 0"])
    paths = result.write(tmp_path / "report")
    assert sorted(paths) == ["csv", "html", "json", "md"]
    record = json.loads(paths["json"].read_text())
    assert record["comparisons"][0]["verdict"] == "higher"
    assert record["comparisons"][0]["items_still_needed"] == 0
    assert record["requirements"][0]["holds"] is True
    assert len(record["by_tag"]) == 2
    rows = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
    assert len(rows) == 800
    assert {row["grade:normalised"] for row in rows} == {"0.0", "1.0"}
    page, text = paths["html"].read_text(), paths["md"].read_text()
    for shown in (page, text):
        assert "steered is higher than baseline" in shown
        assert "Holm" in shown
        assert "exact McNemar test" in shown
        assert "Items that flipped" in shown
    assert "<script" not in page


def test_what_answers_contain_does_not_break_the_report(tmp_path: Path):
    wild = '<script>alert(1)</script> | `x` </pre>\n\n# no\n\0\ud800 "quoted",\r\n=1+1'
    rows = [{"prompt": "<b>{{ 7 * 7 }}</b>", "expected": "yes"}, {"prompt": "b", "expected": "yes"}]
    result = ab(rows, answers={"a<b>": [wild, "yes"], "b": ["yes", "yes"]})
    paths = result.write(tmp_path)
    page, text = paths["html"].read_text(), paths["md"].read_text()
    for shown in (page, text):
        assert "<script>alert" not in shown
        assert "{{ 7 * 7 }}" in shown
    assert "a<b>" not in page
    assert json.loads(paths["json"].read_text())["flips"]


def test_differing_words_are_marked():
    first, second = marked("the red house", "the green house")
    assert [(piece.text, piece.marked) for piece in first] == [("the ", False), ("red", True), (" house", False)]
    assert [(piece.text, piece.marked) for piece in second] == [("the ", False), ("green", True), (" house", False)]
    assert [piece.text for piece in marked("a", "")[0]] == ["a"]
    long = "word " * 20_000
    assert "".join(piece.text for piece in marked(long, long + "x")[1]) == long + "x"


def test_a_judge_compares_pairs_and_its_contradictions_are_ties():
    import asyncio

    from steering_ab.comparing import ab_async
    from steering_ab.graders.judge import JudgeModel

    asked = []

    async def ask(messages: Any) -> str:
        text = messages[-1]["content"]
        asked.append(text)
        first, second = (text.split(f"[Answer {name}]\n")[1].split("\n[End")[0] for name in "AB")
        if "always first" in text:
            return "I like it. [[A]]"
        return "[[A]]" if len(first) > len(second) else "[[B]]"

    rows = [{"prompt": f"{n}"} for n in range(20)] + [{"prompt": f"always first {n}"} for n in range(5)] + ["same"]
    answers = {"short": ["x"] * 26, "long": ["xxxx"] * 25 + ["x"]}
    judge = JudgeModel("scripted", ask)
    result = asyncio.run(ab_async(rows, answers=answers, graders=["judge:length", "length"], judge=judge))
    comparison = result.comparisons[0]
    assert (comparison.wins, comparison.ties, comparison.losses, comparison.disagreements) == (20, 6, 0, 5)
    assert (comparison.verdict, comparison.test) == ("higher", "exact sign test of wins and losses")
    assert result.compare("short", "long").difference == -comparison.difference
    assert len(asked) == 50
    assert "changed its mind" in result.to_markdown()
    assert "The criterion is: length" not in asked[0]
    with pytest.raises(RequirementError, match="compares pairs, so an arm has no rate"):
        asyncio.run(ab_async(rows, answers=answers, graders=["judge"], judge=judge, require=["long >= 0.5"]))


def test_repeated_questions_are_said_to_be_no_evidence_of_their_own():
    rows = [{"prompt": "the same", "expected": "x"} for _ in range(10)]
    result = ab(rows, answers={"a": ["x"] * 10, "b": ["y"] * 10})
    assert "9 items ask what an earlier item asks" in result.to_markdown()


def test_too_few_items_for_a_test_are_said_to_be():
    rows = [{"prompt": str(n), "expected": "x"} for n in range(5)]
    result = ab(rows, answers={"a": ["x"] * 5, "b": ["y"] * 5})
    assert result.comparisons[0].verdict == "not shown"
    assert "fewer than 6 items" in result.to_markdown()


def test_a_notebook_shows_the_result_as_markdown():
    result = simulated({"baseline": 0.5, "steered": 0.6}, items=20)
    assert result._repr_markdown_().startswith("# Comparison of baseline, steered")
