"""A fit that was interrupted goes on where it was."""

import json
from pathlib import Path

import pytest

from steering_profiles.fitting.journal import Journal


def refuse() -> int:
    raise AssertionError("this had been computed")


def test_what_was_found_is_not_computed_again(tmp_path: Path):
    path = tmp_path / "fit.jsonl"
    assert Journal(path, "one").recall("a", lambda: 3) == 3
    assert Journal(path, "one").recall("a", refuse) == 3


def test_a_journal_of_another_fit_is_begun_anew(tmp_path: Path):
    path = tmp_path / "fit.jsonl"
    Journal(path, "one").recall("a", lambda: 3)
    assert Journal(path, "two").recall("a", lambda: 4) == 4
    assert Journal(path, "two").recall("a", refuse) == 4


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_last_line_that_was_cut_short_costs_that_line_alone(tmp_path: Path, cut: int):
    path = tmp_path / "fit.jsonl"
    journal = Journal(path, "one")
    journal.recall("a", lambda: 3)
    journal.recall("b", lambda: [1.5, "x" * 20])
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, "one")
    assert again.recall("a", refuse) == 3
    assert again.recall("b", lambda: [2]) in ([2], [1.5, "x" * 20])
    assert json.loads(path.read_text().splitlines()[0]) == {"key": "one"}
    assert Journal(path, "one").recall("b", refuse)


@pytest.mark.parametrize("content", ["", "not json\n", "[]\n", '{"key": "one"}\n[]\n', '{"key": "one"}\n{"name": 1}\n'])
def test_a_file_that_is_no_journal_is_begun_anew(tmp_path: Path, content: str):
    path = tmp_path / "fit.jsonl"
    path.write_text(content)
    assert Journal(path, "one").recall("a", lambda: 3) == 3
    assert Journal(path, "one").recall("a", refuse) == 3


def test_numbers_come_back_as_they_were(tmp_path: Path):
    value = [0.1 + 0.2, 1e-300, -0.0, 2**60]
    Journal(tmp_path / "fit.jsonl", "one").recall("a", lambda: value)
    assert Journal(tmp_path / "fit.jsonl", "one").recall("a", refuse) == value


def test_a_fit_that_is_done_leaves_no_journal(tmp_path: Path):
    journal = Journal(tmp_path / "fit.jsonl", "one")
    journal.recall("a", lambda: 3)
    journal.discard()
    assert not list(tmp_path.iterdir())


def test_without_a_path_results_are_kept_for_this_run_alone():
    journal = Journal()
    assert journal.recall("a", lambda: 3) == 3
    assert journal.recall("a", refuse) == 3
