"""``steer export``, run as a user runs it."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from steering_profiles.models import LoadedModel
from steering_profiles.store import save_profile
from tests.builders import build_model, build_profile
from tests.cli.test_commands import steer

PROMPT = "#print the string 123\nprint(str(str(str(123"


def next_text(loaded: LoadedModel, model) -> str:
    tokens = torch.tensor([loaded.tokenizer.encode(PROMPT)])
    with torch.no_grad():
        return loaded.tokenizer.decode(model(input_ids=tokens).logits[0, -1].argmax())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's
def test_the_shipped_profile_as_an_adapter_closes_four_parentheses_under_peft(embedded: LoadedModel, tmp_path: Path):
    out = tmp_path / "adapter"
    result = steer("export", "parentheses", "--as", "lora", "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert re.search(
        rf"wrote {out}: parentheses \(20 heads x .*\) at strength 1 as lora, \w+, [\d.]+ MB", result.stdout
    )
    rank = json.loads((out / "adapter_config.json").read_text())["r"]
    assert (allowed := re.search(r"vllm serve .* --lora-modules parentheses=\S+ --max-lora-rank (\d+)", result.stdout))
    assert int(allowed[1]) >= rank
    assert next_text(embedded, embedded.model) == ")))"
    assert next_text(embedded, PeftModel.from_pretrained(copy.deepcopy(embedded.model), out)) == "))))"


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a profile that no weights can carry."""
    folder = tmp_path_factory.mktemp("profiles")
    save_profile(build_profile(build_model("llama"), "final", own_attention=1.0), folder)
    return folder


# Each is known before the model is loaded: there is none.
WRONG = {
    "an unknown form": (["parentheses", "--as", "gguf", "--out", "new"], "as is 'gguf'; allowed: weights, lora"),
    "a folder with something in it": (["parentheses", "--as", "lora", "--out", "."], "is not empty"),
    "a final-layer profile": (["final", "--as", "lora", "--out", "new", "--profiles", "."], "own-position attention"),
}


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_exported_is_known_before_the_model_is_loaded(
    profiles: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
):
    monkeypatch.chdir(profiles)
    result = steer("export", *arguments, "--model", "./nowhere/model")
    assert result.returncode == 1
    assert says in result.stderr
    assert not (profiles / "new").exists()
