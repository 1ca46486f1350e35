"""``steer fit parentheses`` on models of other architectures and with other tokenizers."""

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Provenance
from steering_profiles.store import load_profile, save_profile
from tests.builders import build_model, build_profile, build_tokenizer
from tests.cli.conftest import Steer
from tests.cli.subprocesses import steer
from tests.families import build_family

SEARCH = ("--method", "paper", "--k", "2", "--alpha", "1.5")


def save(loaded: LoadedModel, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> tuple[str, ...]:
    """Save a model to ``folder`` and return the options that load it."""
    loaded.model.save_pretrained(folder)
    (tokenizer or loaded.tokenizer).save_pretrained(folder)
    return "--model", str(folder), "--dtype", "float32"


@pytest.mark.parametrize("case", ["gpt2", "opt-350m", "falcon-40b", "gemma3", "mixtral"])
def test_a_model_of_another_family_is_fitted_and_measured(case: str, small: Steer, tmp_path: Path):
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


def test_a_sub_task_without_a_token_in_the_tokenizer_is_named_and_the_others_are_fitted(small: Steer, tmp_path: Path):
    model = save(build_model("llama", dtype=torch.float32), tmp_path / "model", build_tokenizer(closers=3))
    fitted = small("fit", "parentheses", "--out", str(tmp_path / "out"), *SEARCH, *model)
    assert fitted.exit_code == 0, fitted.output
    assert "left out: )))): not a single token in this tokenizer" in fitted.output
    provenance = load_profile(tmp_path / "out" / "parentheses.json").provenance
    assert provenance is not None
    assert set(provenance.test["after"]) == {")", "))", ")))"}


def test_a_tokenizer_with_too_few_of_the_tokens_is_an_error_of_one_line(tmp_path: Path):
    model = save(build_model("llama", dtype=torch.float32), tmp_path / "model", build_tokenizer(closers=1))
    refused = steer("fit", "parentheses", "--out", str(tmp_path / "out"), *model)
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert line == "error: parentheses: this tokenizer has 1 of the tokens ) )) ))) )))); at least two are needed"


def test_every_prompt_of_the_task_is_measured_and_wrong_answers_are_named(small: Steer, tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    model = save(loaded, tmp_path / "model")
    path = save_profile(build_profile(loaded, "strong", heads=[(0, 1, 4.0)]), tmp_path)
    figures = tmp_path / "figures.json"
    task = ("--task", "parentheses", "--exhaustive", "--no-side-effects", "--json", str(figures))
    measured = small("evaluate", str(path), *task, *model)
    assert measured.exit_code == 0, measured.output
    record = json.loads(figures.read_text())
    every = record["accuracy"]["every prompt"]["with"]
    assert set(every) == {")", "))", ")))", "))))"}
    assert len(record["wrong"]) == sum(round(900 * (100 - percent) / 100) for percent in every.values())
    assert all(answer["given"] != answer["right"] for answer in record["wrong"])
    assert f"wrong: {record['wrong'][0]['prompt'].splitlines()[-1]!r}" in measured.output
    assert f"and {len(record['wrong']) - 40} more wrong answers" in measured.output


def test_a_profile_is_measured_on_the_task_that_it_was_fitted_to(small: Steer, tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    model = save(loaded, tmp_path / "model")
    provenance = Provenance(tool_version="0", command="", task="parentheses", seed=0)
    profile = build_profile(loaded, "strong", heads=[(0, 1, 4.0)])
    fitted = save_profile(profile.model_copy(update={"provenance": provenance}), tmp_path / "fitted")
    assert ")))" in small("evaluate", str(fitted), "--no-side-effects", *model).output
    for task, said in ((None, "does not name its task"), ("mine", "a file of your own")):
        own = None if task is None else provenance.model_copy(update={"task": task})
        path = save_profile(profile.model_copy(update={"provenance": own}), tmp_path / "other")
        refused = steer("evaluate", str(path), *model)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "--task" in refused.stderr
