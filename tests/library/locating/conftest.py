"""Models on disk."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.builders import build_model
from tests.gguf import write_gguf
from tests.library.locating.files import save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(build_model("llama", dtype=torch.float32), tmp_path / "some-model")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "gguf" / "tiny.gguf")


@pytest.fixture
def _unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test when weights are read."""
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the weights were read"))
