"""Graders: what each makes of an answer, and which items it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steering_ab.datasets import Item, dataset_of
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer, Grader
from steering_ab.graders.planning import plan_grading
from steering_ab.graders.registry import named_grader
from tests.documents.reading import ROOT


def item(**fields: Any) -> Item:
    (found, _) = dataset_of([{"prompt": "p", **fields}, "another"]).items
    return found


def grader(name: str) -> Grader:
    made = named_grader(name).grader
    assert isinstance(made, Grader)
    return made


def grade(name: str, answer: str | Answer, **fields: Any) -> float:
    made, asked = grader(name), item(**fields)
    made.require(asked)
    return made.grade(asked, Answer(answer) if isinstance(answer, str) else answer)


@pytest.mark.parametrize(
    ("name", "answer", "expected", "right"),
    [
        ("exact", "))))", "))))", True),
        ("exact", " Paris", "Paris", False),
        ("exact", "b", ["a", "b"], True),
        ("normalised", "  the\n Ｃａｆé ", "The café", True),
        ("normalised", ")))", "))))", False),
        ("contains", "It is Paris, of course", "paris", True),
        ("contains", "It is Rome", ["paris", "London"], False),
        ("startswith", " Paris. It has", "Paris", True),
        ("startswith", "It is Paris", "Paris", False),
        ("regex", "call 555-1234 now", r"\d{3}-\d{4}", True),
        ("regex:^yes", "yes, sir", None, True),
        ("regex:^yes", "oh yes", None, False),
        ("number", "It is 41, no, 42.", 42, True),
        ("number:first", "It is 41, no, 42.", 41, True),
        ("number", "about 1,234.5 metres", "1234.5", True),
        ("number", "10-3=7", 7, True),
        ("number", "it is −4", -4, True),
        ("number", "none", 0, False),
        ("number:0.1", "0.3", 0.2, True),
        ("number:0.1", "0.31", 0.2, False),
        ("number:1%", "101", 100, True),
        ("number:first,1%", "102 and 100", 100, False),
        ("json", '{"a": [1]}', None, True),
        ("json", "{'a': 1}", None, False),
        ("json", "NaN", None, False),
        ("json", "[" * 100_000, None, False),
    ],
)
def test_grades_of_yes_or_no(name: str, answer: str, expected: Any, right: bool):
    fields = {} if expected is None else {"expected": expected}
    assert grade(name, answer, **fields) == right
    assert grader(name).yes_no


def test_a_pattern_that_takes_for_ever_is_stopped_and_named():
    with pytest.raises(GraderError, match=r"takes more than 1 s"):
        grade("regex", "a" * 60 + "!", expected="^(a|a)*$")


def test_json_is_validated_by_the_schema_of_the_grader_or_of_the_item(tmp_path: Path):
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    for name, fields in ((f"json:{file}", {}), ("json", {"schema": schema}), ("json", {"schema": json.dumps(schema)})):
        assert grade(name, '{"a": 1}', **fields) == 1
        assert grade(name, '{"a": "1"}', **fields) == 0
        assert grade(name, "[]", **fields) == 0


@pytest.mark.parametrize("schema", [{"type": "integr"}, {"$ref": "http://127.0.0.1:9/other.json"}, 3, "nope"])
def test_what_is_no_schema_is_refused(schema: Any):
    with pytest.raises(GraderError, match=r"schema: is"):
        grader("json").require(item(schema=schema))


def test_a_multiple_choice_is_right_if_the_expected_choice_is_the_likeliest():
    fields = {"choices": ["a", "a long one"], "expected": "a long one"}
    answer = Answer("", choice_logprobs=(-1.0, -2.0))
    assert grade("choice", answer, **fields) == 0
    assert grade("choice:normalised", answer, **fields) == 1
    with pytest.raises(GraderError, match="not known"):
        grade("choice", "a", **fields)


def test_lengths_are_scores():
    answer = Answer("two words", tokens=5)
    assert [grade(f"length:{unit}", answer) for unit in ("characters", "words", "tokens")] == [9, 2, 5]
    assert not grader("length").yes_no
    with pytest.raises(GraderError, match="does not say the number of tokens"):
        grade("length:tokens", "a")


def test_python_tests_run_in_the_sandbox_after_the_prompt_and_the_answer():
    fields = {"prompt": "def double(x):\n", "tests": "assert double(2) == 4"}
    assert grade("python", "    return 2 * x", **fields) == 1
    assert grade("python", "    return 3 * x", **fields) == 0
    assert grade("python", "    return (", **fields) == 0
    assert grade("python", "    raise SystemExit(0)", **fields) == 0
    assert grade("python", "Here:\n```python\ndef double(x):\n    return x + x\n```\nDone.", **fields) == 1
    assert grade("python:1", "    while True: pass", **fields) == 0


def test_python_tests_may_be_humanevals():
    fields = {"prompt": "def one():\n", "test": "def check(f):\n    assert f() == 1", "entry_point": "one"}
    assert grade("python", "    return 1", **fields) == 1
    assert grade("python", "    return 2", **fields) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exakt", "there is no grader 'exakt'; there are: exact, normalised"),
        ("", "there is no grader ''"),
        ("exact:x", "exact takes no argument"),
        ("regex:(", "is not a regular expression"),
        ("regex:", "no argument after it"),
        ("number:x", "'x' is no tolerance"),
        ("number:-1", "'-1' is no tolerance"),
        ("number:nan", "'nan' is no tolerance"),
        ("length:lines", "'lines' is no unit"),
        ("choice:best", "allowed: choice, or choice:normalised"),
        ("python:soon", "a time limit"),
        ("python:0", "a time limit"),
        ("json:/no/such/file", "cannot be read"),
        ("json:pyproject.toml", "is not JSON"),
        ("judge", "--judge-url and --judge-model"),
    ],
)
def test_what_is_no_grader_is_refused(name: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(GraderError, match=message):
        named_grader(name)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("exact", {}, "expected: is missing"),
        ("contains", {"expected": " "}, "expected: is empty"),
        ("regex", {"expected": "("}, "is not a regular expression"),
        ("number", {"expected": "four"}, "expected: is 'four'"),
        ("choice", {"expected": "a"}, "choices: is missing"),
        ("choice", {"choices": ["a", "b"], "expected": "c"}, "which is none of the choices"),
        ("choice", {"choices": ["a", "b"]}, "expected: is missing"),
        ("python", {}, "tests: is missing"),
        ("python", {"tests": 3}, "tests: is 3; allowed: text"),
    ],
)
def test_an_item_that_cannot_be_graded_is_refused(name: str, fields: dict[str, Any], message: str):
    with pytest.raises(GraderError, match=message):
        grader(name).require(item(**fields))


def test_without_a_name_each_item_is_graded_by_what_it_has():
    dataset = dataset_of(
        [
            {"prompt": "a", "expected": "b"},
            {"prompt": "a", "expected": "b", "choices": ["b", "c"]},
            {"prompt": "a", "tests": "pass"},
            {"prompt": "a", "schema": {}},
            {"prompt": "a", "expected": "b", "grader": "contains"},
            {"prompt": "a"},
            {"prompt": "a", "grader": "exakt"},
        ]
    )
    usable, (grading,) = plan_grading(dataset, ())
    names = [grading.by_item[one.id].name for one in usable.items]
    assert names == ["normalised", "choice", "python", "json", "contains"]
    assert (grading.name, grading.yes_no) == ("correct", True)
    assert [fault.line for fault in usable.faults] == [6, 7]
    assert "has none of expected, choices, tests and schema" in usable.faults[0].reason


def test_several_graders_grade_what_they_can():
    dataset = dataset_of([{"prompt": "a", "expected": "b"}, {"prompt": "c"}])
    usable, (exact, length) = plan_grading(dataset, ("exact", "length"))
    assert (len(exact.by_item), len(length.by_item), len(usable.items)) == (1, 2, 2)


def test_scores_are_not_averaged_with_yes_or_no():
    dataset = dataset_of([{"prompt": "a", "expected": "b"}, {"prompt": "c", "grader": "length"}])
    with pytest.raises(GraderError, match="cannot be averaged"):
        plan_grading(dataset, ())
    with pytest.raises(GraderError, match="'exact' is named twice"):
        plan_grading(dataset, ("exact", "exact"))


def test_the_example_of_a_grader_of_ones_own_is_found_when_it_is_installed(tmp_path: Path):
    copy = shutil.copytree(ROOT / "examples" / "grader", tmp_path / "grader")  # a build writes beside the sources
    install = "-m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target"
    words = [sys.executable, *install.split(), str(tmp_path / "site"), str(copy)]
    subprocess.run(words, check=True, timeout=120)
    code = (
        "import steering_ab\n"
        "items = [{'prompt': 'a'}, {'prompt': 'b'}, {'prompt': 'c'}]\n"
        "answers = {'short': ['One.'] * 3, 'long': ['One. Two.', 'One.', 'One! Two? Three.']}\n"
        "result = steering_ab.ab(items, answers=answers, graders=['sentences'])\n"
        "print(result.compare('long', 'short').losses, result.comparisons[0].grader)\n"
        "try:\n"
        "    steering_ab.ab(items, answers=answers, graders=['sentences:none'])\n"
        "except steering_ab.ABError as exc:\n"
        "    print(exc)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.splitlines() == [
        "2 sentences",
        "grader sentences:none: allowed: a number of sentences from 1 on",
    ], done.stderr
