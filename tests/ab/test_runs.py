"""Runs: answers are kept as they come, a run goes on where it was stopped, and nothing is lost."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from steering_ab import Answer, Item, Result, ab
from steering_ab.asking.asker import AskSettings
from steering_ab.asking.labels import labelled
from steering_ab.datasets import dataset_of
from steering_ab.errors import ABError, AskingError, RunError
from steering_ab.graders import registry
from steering_ab.graders.planning import plan_grading
from steering_ab.runs.folder import RunFolder
from steering_ab.runs.lines import Lines
from steering_ab.runs.run import Run

ITEMS = [{"prompt": str(n), "expected": str(n % 3 == 0), "tags": ["even" if n % 2 == 0 else "odd"]} for n in range(12)]
ARMS = ("guess", "know")


class Answering:
    """Answers, and notes what it was asked."""

    def __init__(self, fails: Sequence[str] = ()) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fails = set(fails)

    def __call__(self, item: Item, arm: str) -> str:
        self.asked.append((item.prompt or "", arm))
        if item.prompt in self.fails:
            raise ConnectionError("gone")
        return "False" if arm == "guess" else item.expected[0]


def compare(folder: Path | None, answer: Any, items: Any = ITEMS, **options: Any) -> Result:
    return ab(items, ARMS, answer=answer, out=folder, **options)


def test_every_answer_and_grade_is_a_line_of_the_runs_folder(tmp_path: Path):
    compare(tmp_path / "run", Answering())
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 24
    assert {(each["item"], each["arm"]) for each in answers} >= {("line-1", "guess"), ("line-12", "know")}
    assert len((tmp_path / "run" / "grades.jsonl").read_text().splitlines()) >= 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["arms"] == {
        "guess": "guess",
        "know": "know",
    }


def test_a_finished_run_asks_nothing_again_and_has_the_same_result(tmp_path: Path):
    before = compare(tmp_path, Answering())
    again = Answering()
    after = compare(tmp_path, again)
    assert not again.asked
    assert after.comparisons == before.comparisons


def test_a_run_goes_on_after_a_torn_last_line(tmp_path: Path):
    compare(tmp_path, Answering())
    answers = tmp_path / "answers.jsonl"
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:10]) + lines[10][:20])
    again = Answering()
    result = compare(tmp_path, again)
    assert len(again.asked) == 14
    assert result.comparisons[0].items == 12
    assert [json.loads(line) for line in answers.read_bytes().splitlines()]


def test_lines_that_are_no_answers_are_asked_again(tmp_path: Path):
    compare(tmp_path, Answering())
    answers = tmp_path / "answers.jsonl"
    lines = answers.read_text().splitlines()
    answers.write_text("\n".join([*lines[:20], "nope", "[1]", '{"item": 3}', '{"answer": {"text": 5}}']) + "\n")
    again = Answering()
    assert compare(tmp_path, again).comparisons[0].items == 12
    assert len(again.asked) == 4


def test_grades_that_are_no_grades_are_made_again(tmp_path: Path):
    before = compare(tmp_path, Answering())
    grades = tmp_path / "grades.jsonl"
    records = [json.loads(line) for line in grades.read_text().splitlines()]
    grades.write_text("".join(json.dumps({"key": record["key"], "grade": "much"}) + "\n" for record in records))
    after = compare(tmp_path, Answering())
    assert after.comparisons == before.comparisons
    assert not after.failures


def test_only_items_that_ask_something_else_are_asked_when_the_data_set_changes(tmp_path: Path):
    compare(tmp_path, Answering())
    changed = [*ITEMS[:-1], {"prompt": "new", "expected": "False"}, {"prompt": "more", "expected": "x"}]
    again = Answering()
    result = compare(tmp_path, again, changed)
    assert {prompt for prompt, _ in again.asked} == {"new", "more"}
    assert result.comparisons[0].items == 13


def test_answers_are_graded_again_when_what_is_expected_changes(tmp_path: Path):
    before = compare(tmp_path, Answering())
    changed = [{**item, "expected": "False"} for item in ITEMS]
    again = Answering()
    after = compare(tmp_path, again, changed)
    assert not again.asked
    assert before.comparisons[0].difference > 0 > after.comparisons[0].difference


def test_a_folder_of_other_settings_is_refused(tmp_path: Path):
    compare(tmp_path, Answering())
    with pytest.raises(RunError, match=r"other settings: seed is 1, and was 0; choose another --out"):
        compare(tmp_path, Answering(), seed=1)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunError, match="no folder that can be written to"):
        compare(file, Answering())
    (tmp_path / "run.json").write_text('{"settings": {}}')
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        compare(tmp_path, Answering())


def test_a_folder_is_used_by_one_run_at_a_time(tmp_path: Path):
    with RunFolder(tmp_path).locked(), pytest.raises(RunError, match="in use by another run"):
        compare(tmp_path, Answering())


def test_items_that_fail_are_named_do_not_count_and_are_asked_again(tmp_path: Path):
    result = compare(tmp_path, Answering(fails=["4"]))
    assert [str(fault) for fault in result.unanswered] == ["line 5: the function raised ConnectionError: gone"]
    assert result.comparisons[0].items == 11
    again = Answering()
    assert not compare(tmp_path, again).unanswered
    assert again.asked == [("4", "guess"), ("4", "know")]


def test_a_run_ends_when_nobody_answers(tmp_path: Path):
    items = [{"prompt": str(n), "expected": "1"} for n in range(300)]
    answering = Answering(fails=[str(n) for n in range(300)])
    with pytest.raises(AskingError, match="requests in a row have failed, the last one: the function raised"):
        compare(tmp_path, answering, items)
    assert len(answering.asked) < 100
    with pytest.raises(AskingError, match=r"nothing to compare: line 1: the function raised"):
        compare(tmp_path, Answering(fails=["a", "b"]), ["a", "b"], graders=["length"])


def test_what_is_answered_before_everybody_leaves_is_kept(tmp_path: Path):
    items = [{"prompt": str(n), "expected": "False"} for n in range(200)]
    with pytest.raises(AskingError):
        compare(tmp_path, Answering(fails=[str(n) for n in range(100, 200)]), items)
    kept = len((tmp_path / "answers.jsonl").read_text().splitlines())
    again = Answering()
    compare(tmp_path, again, items)
    assert kept >= 200
    assert len(again.asked) == 400 - kept


def test_grading_again_uses_the_recorded_settings_and_asks_nothing(tmp_path: Path):
    compare(tmp_path, Answering(), temperature=1.0, repeats=3)
    usable, gradings = plan_grading(dataset_of(ITEMS[:-1]), ("length",))
    run = Run(usable, labelled(ARMS), gradings, AskSettings(), about={"command": "again"}, out=tmp_path, regrade=True)
    result = asyncio.run(run.result(None))
    assert result.settings.repeats == 3
    assert result.efforts[0].answers == 33
    assert result.about["graded again by"] == "again"
    assert not result.unanswered
    run = Run(usable, labelled(("guess", "other")), gradings, AskSettings(), out=tmp_path, regrade=True)
    with pytest.raises(RunError, match="holds a run of the arms guess, know"):
        asyncio.run(run.result(None))


def test_items_without_an_answer_are_named_when_a_run_is_graded_again(tmp_path: Path):
    compare(tmp_path, Answering())
    usable, gradings = plan_grading(dataset_of([*ITEMS, "new"]), ("length",))
    run = Run(usable, labelled(ARMS), gradings, AskSettings(), out=tmp_path, regrade=True)
    assert [fault.line for fault in asyncio.run(run.result(None)).unanswered] == [13]


class Raising:
    """A grader that fails on some answers."""

    yes_no = True

    def __init__(self, argument: str | None) -> None:
        self.argument = argument

    def grade(self, item: Item, answer: Answer) -> float:
        if item.prompt in ("3", "5"):
            raise KeyError("a bug of the grader")
        return 2.0 if item.prompt == "7" else float(answer.text == item.expected[0])


class _Entry:
    name = "raising"
    value = "tests.ab.test_runs:Raising"

    @staticmethod
    def load() -> type[Raising]:
        return Raising


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed grader named ``raising``."""
    monkeypatch.setattr(registry, "entry_points", lambda group: [_Entry()])


@pytest.mark.usefixtures("raising")
def test_a_grader_that_raises_is_named_and_nothing_is_lost(tmp_path: Path):
    result = compare(tmp_path, Answering(), graders=["raising", "exact"])
    assert [failure.line for failure in result.failures] == [4, 4, 6, 6, 8, 8]
    assert str(result.failures[0]).startswith("line 4, ")
    assert "grader raising: KeyError: 'a bug of the grader'" in str(result.failures[0])
    assert "returned 2.0; allowed: 0 or 1" in str(result.failures[-1])
    assert [each.items for each in result.comparisons] == [9, 12]
    again = Answering()
    assert compare(tmp_path, again, graders=["raising"]).failures
    assert not again.asked


def test_a_run_that_was_killed_goes_on(tmp_path: Path):
    program = (
        "import sys, time, steering_ab\n"
        "def answer(item, arm):\n"
        "    time.sleep(0.002)\n"
        "    return item.expected[0]\n"
        "items = [{'prompt': str(n), 'expected': 'x' * (n % 50)} for n in range(20_000)]\n"
        "items = [{**item, 'expected': item['expected'] or 'y'} for item in items]\n"
        "steering_ab.ab(items, ('guess', 'know'), answer=answer, out=sys.argv[1])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    answers = tmp_path / "answers.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and (not answers.exists() or answers.stat().st_size < 50_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = list(Lines(answers).read())
    assert len(whole) > 50
    with Lines(answers) as lines:
        lines.append({"a": "line"})
    assert [json.loads(line) for line in answers.read_bytes().splitlines()] == [*whole, {"a": "line"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 3}, "repeats is 3 at temperature 0"),
        ({"repeats": 0}, "repeats is 0; allowed: 1..1000"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"temperature": 3.0}, "temperature is 3.0; allowed: 0..2"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"detect": 0}, "detect is 0"),
        ({"require": ["know - gues > 0"]}, "'gues' is no arm; arms: guess, know"),
        ({"require": ["know - guess > 0 on tag:prime"]}, "no item has the tag 'prime'; tags: even, odd"),
        ({"require": ["know - guess > 0 by number"]}, "'number' is no grader of this run; graders: normalised"),
        ({"graders": ["exakt"]}, "there is no grader 'exakt'"),
        ({"url": "http://127.0.0.1:1"}, "answer is given, and url says who answers already"),
    ],
)
def test_bad_options_are_refused_before_anything_is_asked(options: dict[str, Any], message: str):
    answering = Answering()
    with pytest.raises(ABError, match=message):
        compare(None, answering, **options)
    assert not answering.asked


@pytest.mark.parametrize("arms", [(), ("one",), ("a", ""), tuple("abcdefghi")])
def test_a_comparison_has_two_to_eight_arms(arms: tuple[str, ...]):
    with pytest.raises(AskingError, match="arms: "):
        ab(ITEMS, arms, answer=Answering())


def test_answers_that_are_there_already_are_compared():
    result = ab(ITEMS, answers={"a": ["True"] * 12, "b": ["False"] * 12})
    assert result.compare("b", "a").difference == pytest.approx(4 / 12)
    with pytest.raises(AskingError, match="arm 'b' has 3 answers for 12 items"):
        ab(ITEMS, answers={"a": ["True"] * 12, "b": ["False"] * 3})
    with pytest.raises(AskingError, match="arm 'b' has a text"):
        ab(ITEMS, answers={"a": ["True"] * 12, "b": "False"})


def test_a_function_may_be_a_coroutine_and_is_checked():
    async def answer(item: Item, arm: str) -> str:
        return arm

    assert ab(["a", "b"], ARMS, answer=answer, graders=["length"]).compare("know", "guess").difference == -1
    with pytest.raises(AskingError, match="the function returned 3; allowed: text"):
        ab(["a", "b"], ARMS, answer=lambda item, arm: 3, graders=["length"])


def test_a_prepared_data_set_is_taken():
    assert ab(dataset_of(ITEMS, "mine"), ARMS, answer=Answering()).dataset.name == "mine"
