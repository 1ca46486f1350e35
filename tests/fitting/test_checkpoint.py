"""A fit that was interrupted continues where it stopped."""

import json
from pathlib import Path

import pytest

from steering_profiles.fitting import FitSettings
from steering_profiles.fitting.checkpoint import FitCheckpoint, fit_key
from steering_profiles.models import LoadedModel
from steering_profiles.tasks import parentheses


def refuse() -> int:
    raise AssertionError("this had been computed")


def test_a_recorded_result_is_not_computed_again(tmp_path: Path):
    path = tmp_path / "fit.jsonl"
    assert FitCheckpoint(path, "one").recall("a", lambda: 3) == 3
    assert FitCheckpoint(path, "one").recall("a", refuse) == 3


def test_the_checkpoint_of_another_fit_is_dropped(tmp_path: Path):
    path = tmp_path / "fit.jsonl"
    FitCheckpoint(path, "one").recall("a", lambda: 3)
    assert FitCheckpoint(path, "two").recall("a", lambda: 4) == 4
    assert FitCheckpoint(path, "two").recall("a", refuse) == 4


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_an_incomplete_last_line_loses_only_that_line(tmp_path: Path, cut: int):
    path = tmp_path / "fit.jsonl"
    checkpoint = FitCheckpoint(path, "one")
    checkpoint.recall("a", lambda: 3)
    checkpoint.recall("b", lambda: [1.5, "x" * 20])
    path.write_bytes(path.read_bytes()[:-cut])
    again = FitCheckpoint(path, "one")
    assert again.recall("a", refuse) == 3
    assert again.recall("b", lambda: [2]) in ([2], [1.5, "x" * 20])
    assert json.loads(path.read_text().splitlines()[0]) == {"key": "one"}
    assert FitCheckpoint(path, "one").recall("b", refuse)


@pytest.mark.parametrize("content", ["", "not json\n", "[]\n", '{"key": "one"}\n[]\n', '{"key": "one"}\n{"name": 1}\n'])
def test_a_file_that_is_not_a_checkpoint_is_overwritten(tmp_path: Path, content: str):
    path = tmp_path / "fit.jsonl"
    path.write_text(content)
    assert FitCheckpoint(path, "one").recall("a", lambda: 3) == 3
    assert FitCheckpoint(path, "one").recall("a", refuse) == 3


def test_numbers_are_restored_exactly(tmp_path: Path):
    value = [0.1 + 0.2, 1e-300, -0.0, 2**60]
    FitCheckpoint(tmp_path / "fit.jsonl", "one").recall("a", lambda: value)
    assert FitCheckpoint(tmp_path / "fit.jsonl", "one").recall("a", refuse) == value


def test_discard_removes_the_file(tmp_path: Path):
    checkpoint = FitCheckpoint(tmp_path / "fit.jsonl", "one")
    checkpoint.recall("a", lambda: 3)
    checkpoint.discard()
    assert not list(tmp_path.iterdir())


def test_without_a_path_results_are_kept_in_memory():
    checkpoint = FitCheckpoint()
    assert checkpoint.recall("a", lambda: 3) == 3
    assert checkpoint.recall("a", refuse) == 3


def test_the_checkpoint_of_an_older_version_is_dropped(tiny: LoadedModel, tmp_path: Path):
    path = tmp_path / ".parentheses.fit"
    found = {"accuracy": {")": [3, 4]}, "drift": 0.0}
    path.write_text(f'{{"key": "of version 0.1"}}\n{json.dumps({"name": "path 0", "result": found})}\n')
    checkpoint = FitCheckpoint(path, fit_key(tiny, parentheses(tiny.tokenizer), FitSettings()))
    assert len(checkpoint) == 0
    assert checkpoint.recall("path 0", lambda: 5) == 5
