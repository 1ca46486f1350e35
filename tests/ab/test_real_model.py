"""The default model on 400 items of mixed kind: the shipped profile's gain is found, and no harm."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steering_ab import Result, ab
from steering_profiles.models import LoadedModel
from tests.serving import serving

PROSE = [
    ("The capital of {} is", [("France", " Paris"), ("Italy", " Rome"), ("Japan", " Tokyo"), ("Spain", " Madrid")]),
    ("{} is frozen", [("Ice", " water"), ("Snow", " water")]),
    ("After {} comes", [("Monday", " Tuesday"), ("spring", " summer"), ("night", " day"), ("seven", " eight")]),
    ("The opposite of {} is", [("hot", " cold"), ("big", " small"), ("old", " young"), ("up", " down")]),
]


def mixed_items(number: int = 400) -> list[dict[str, Any]]:
    """Items with four parentheses to close, other code and prose; each asks something else."""
    draws = random.Random(0)
    items = []
    for index, value in enumerate(draws.sample(range(100, 1000), number)):
        start = f"#print the string {value}\nprint("
        if index % 3 == 0:
            items.append({"prompt": f"{start}str(str(str({value}", "expected": "))))", "tags": ["four-paren"]})
        elif index % 3 == 1:
            inner = index // 3 % 3
            expected = ")" * (inner + 1)
            items.append({"prompt": f"{start}{'str(' * inner}{value}", "expected": expected, "tags": ["other", "code"]})
        else:
            form, pairs = PROSE[index // 3 % len(PROSE)]
            word, answer = pairs[index // 12 % len(pairs)]
            text = f"Note {value}. {form.format(word)}"
            items.append({"prompt": text, "expected": answer, "tags": ["other", "prose"]})
    return [{**item, "max_tokens": 1} for item in items]


@pytest.fixture(scope="module")
def url(embedded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(embedded, tmp_path_factory.mktemp("profiles"), shipped=True) as address:
        yield address


@pytest.mark.slow
def test_the_gain_of_the_shipped_profile_is_found_and_no_harm(url: str, tmp_path: Path):
    data = tmp_path / "mixed.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in mixed_items()))
    rules = ["parentheses - baseline >= 0.05", "parentheses - baseline > -0.02 on tag:other"]
    result = ab(data, ["baseline", "parentheses"], url=url, require=rules, out=tmp_path / "run")
    assert [checked.holds for checked in result.checked] == [True, True]
    assert result.comparisons[0].verdict == "higher"
    verdicts = {each.tag: each.verdict for each in result.tagged}
    assert set(verdicts) == {"four-paren", "other", "code", "prose"}
    assert verdicts["four-paren"] == "higher"
    assert verdicts["prose"] == "not shown"
    assert "lower" not in verdicts.values()
    assert not result.check("parentheses - baseline >= 0.5").holds


@pytest.mark.slow
def test_an_arm_compared_with_itself_shows_nothing(url: str):
    result: Result = ab(mixed_items(), ["baseline", "baseline"], url=url)
    assert result.comparisons[0].verdict == "not shown"
    assert not result.flips()
    assert {each.verdict for each in result.tagged} == {"not shown"}
    assert not result.check("baseline.2 - baseline > 0").holds
