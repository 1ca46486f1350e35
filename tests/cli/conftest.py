"""A small model in a folder, and commands in the process of the tests."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from steering_profiles.store import save_profile
from steering_server.cli import app
from tests.builders import build_model, build_profile
from tests.short_texts import use_short_texts

Steer = Callable[..., Result]
"""Runs ``steer`` with the arguments that it is given."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model and a folder of profiles for it."""
    root = tmp_path_factory.mktemp("own")
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(root / "own-model")
    loaded.tokenizer.save_pretrained(root / "own-model")
    save_profile(build_profile(loaded, "strong", heads=[(0, 1, 4.0), (1, 2, -2.0), (2, 0, 3.0)]), root / "profiles")
    return root


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Steer:
    """A function that runs ``steer`` in this process, with few prompts and short texts."""
    task = sys.modules["steering_profiles.tasks.parentheses"]
    monkeypatch.setattr(task, "SPLIT_SIZES", {"train": 12, "dev": 8, "test": 8})
    monkeypatch.setattr(task, "_FIT_FORMAT_SIZE", 2)
    monkeypatch.setattr(task, "_CHOOSING_SIZE", 1)
    few = ("len(", "repr(", "foo(", "code before")
    monkeypatch.setattr(task, "HELD_OUT_FORMATS", {name: task.HELD_OUT_FORMATS[name] for name in few})
    use_short_texts(monkeypatch)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*args: str) -> Result:
        return CliRunner().invoke(app, args, catch_exceptions=False)

    return run
