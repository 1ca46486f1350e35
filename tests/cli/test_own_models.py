"""``steer fit parentheses`` on models that a user brings: of any architecture, with any tokenizer."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from transformers import PreTrainedTokenizerBase
from typer.testing import CliRunner

from steering_profiles.evaluation import held_out, humaneval
from steering_profiles.fitting import rasteer
from steering_profiles.models import LoadedModel
from steering_profiles.store import load_profile
from steering_server.cli import app
from tests.builders import build_model, build_tokenizer
from tests.cli.test_commands import steer
from tests.families import build_family

SEARCH = ("--method", "paper", "--k", "2", "--alpha", "1.5")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command ``steer`` in this process, with few prompts and short texts."""
    task = sys.modules["steering_profiles.tasks.parentheses"]
    monkeypatch.setattr(task, "SPLIT_SIZES", {"train": 12, "dev": 8, "test": 8})
    monkeypatch.setattr(task, "_SHAPE_SIZE", 2)
    monkeypatch.setattr(humaneval, "find_problems", lambda: None)
    monkeypatch.setattr(rasteer, "fitting_texts", lambda: {"text": "a text of a few words"})
    monkeypatch.setattr(held_out, "held_out_texts", lambda: {"other": "another one"})
    monkeypatch.setenv("COLUMNS", "300")

    def run(*args: str) -> Result:
        return CliRunner().invoke(app, args, catch_exceptions=False)

    return run


def save(loaded: LoadedModel, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> tuple[str, ...]:
    """Write a model as a user would have it, and return the options that name it."""
    loaded.model.save_pretrained(folder)
    (tokenizer or loaded.tokenizer).save_pretrained(folder)
    return "--model", str(folder), "--dtype", "float32"


@pytest.mark.parametrize("case", ["gpt2", "opt-350m", "falcon-40b", "gemma3", "mixtral"])
def test_a_model_of_another_family_is_fitted_and_measured(case: str, small: Callable[..., Result], tmp_path: Path):
    loaded, out = build_family(case, dtype=torch.float32), tmp_path / "out"
    model = save(loaded, tmp_path / "model")
    fitted = small("fit", "parentheses", "--out", str(out), *SEARCH, *model)
    assert fitted.exit_code == 0, fitted.output
    profile = load_profile(out / "parentheses.json")
    assert profile.provenance is not None
    assert set(profile.provenance.test["after"]) == {")", "))", ")))", "))))"}
    report = (out / "parentheses.md").read_text()
    assert "len(" in report
    assert ("code before" in report) == (loaded.context_length > 128), "its prompts have more than 128 tokens"
    measured = small("evaluate", str(out / "parentheses.json"), "--no-side-effects", *model)
    assert measured.exit_code == 0, measured.output


def test_a_sub_task_that_a_tokenizer_has_no_token_for_is_named_and_the_others_fitted(
    small: Callable[..., Result], tmp_path: Path
):
    model = save(build_model("llama", dtype=torch.float32), tmp_path / "model", build_tokenizer(closers=3))
    fitted = small("fit", "parentheses", "--out", str(tmp_path / "out"), *SEARCH, *model)
    assert fitted.exit_code == 0, fitted.output
    assert "left out: )))): not one token in this tokenizer" in fitted.output
    provenance = load_profile(tmp_path / "out" / "parentheses.json").provenance
    assert provenance is not None
    assert set(provenance.test["after"]) == {")", "))", ")))"}


def test_a_tokenizer_that_has_too_few_of_the_tokens_is_one_line_and_exit_status_one(tmp_path: Path):
    model = save(build_model("llama", dtype=torch.float32), tmp_path / "model", build_tokenizer(closers=1))
    refused = steer("fit", "parentheses", "--out", str(tmp_path / "out"), *model)
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert line == "error: parentheses: this tokenizer has 1 of the tokens ) )) ))) )))); at least two are needed"
