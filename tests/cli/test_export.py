"""``steer export``: its files, its output, and errors that are reported before the model is loaded."""

import copy
import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from steering_profiles.conditions import Condition
from steering_profiles.errors import ExportError, ProfileMismatch, SteeringError
from steering_profiles.models import LoadedModel
from steering_profiles.store import find_profile, save_profile
from steering_server.cli.commands.export import export
from steering_server.errors import ConfigError
from tests.builders import build_model, build_profile
from tests.cli.subprocesses import steer
from tests.gguf import write_gguf
from tests.quantised import load

PROMPT = "#print the string 123\nprint(str(str(str(123"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, and profiles: for it, for another model, and one that cannot be exported."""
    root = tmp_path_factory.mktemp("own")
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(root / "model")
    loaded.tokenizer.save_pretrained(root / "model")
    save_profile(build_profile(loaded, "scaled", heads=[(0, 1, 3.0), (0, 2, 3.0)], neurons=[(1, 4, 2.0)]), root)
    save_profile(build_profile(loaded, "final", self_only_attention=1.0), root)
    save_profile(build_profile(build_model("llama", layers=2), "other", heads=[(0, 1, 3.0)]), root)
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's
def test_the_shipped_profile_as_an_adapter_closes_four_parentheses_under_peft(embedded: LoadedModel, tmp_path: Path):
    out = tmp_path / "adapter"
    result = steer("export", "parentheses", "--everywhere", "--condition", "1", "--as", "lora", "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert re.search(
        rf"wrote {out}: parentheses \(15 heads x .*\) at strength 1 as lora, \w+, [\d.]+ MB", result.stdout
    )
    assert next_text(embedded, embedded.model) == ")))"
    assert next_text(embedded, PeftModel.from_pretrained(copy.deepcopy(embedded.model), out)) == "))))"


def next_text(loaded: LoadedModel, model: torch.nn.Module) -> str:
    tokens = torch.tensor([loaded.tokenizer.encode(PROMPT)])
    with torch.no_grad():
        return str(loaded.tokenizer.decode(model(input_ids=tokens).logits[0, -1].argmax()))


def test_export_prints_its_files_and_how_to_serve_an_adapter(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, model = tmp_path / "out", str(own / "model")
    export("scaled", form="lora", out=out, folder=own, strength=0.5, model=model, dtype="float32")
    wrote, hint = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"wrote {out}: scaled \(2 heads x 3, 1 neurons x 2\) at strength 0.5 as lora, float32, 0.0 MB", wrote
    )
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 16
    assert hint.endswith(f"vllm serve {model} --enable-lora --lora-modules scaled={out} --max-lora-rank 16")


def assert_same_adapters(one: Path, other: Path) -> None:
    written = [load_file(folder / "adapter_model.safetensors") for folder in (one, other)]
    assert written[0].keys() == written[1].keys()
    assert all(torch.equal(tensor, written[1][name]) for name, tensor in written[0].items())


def save_several(folder: Path, name: str, heads: list[tuple[int, int, float]]) -> None:
    """Save a profile with scales under two conditions, and one of this name that has ``heads`` everywhere."""
    loaded = build_model("llama", dtype=torch.float32)
    one, two = {"last_token": [7]}, {"from_position": 3}
    several = build_profile(loaded, "several", heads=[(0, 1, 2.0, one), (0, 1, 1.5, two), (0, 2, 3.0, two)])
    save_profile(several, folder)
    save_profile(build_profile(loaded, name, heads=heads), folder)


def test_a_condition_is_refused_and_left_out_on_request(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = str(own / "model")
    scaled = find_profile("scaled", own)
    where = scaled.model_copy(update={"name": "where", "when": Condition(last_token=(7,))})
    save_profile(where, tmp_path / "profiles")
    common = {"form": "lora", "folder": tmp_path / "profiles", "model": model, "dtype": "float32"}
    with pytest.raises(ExportError, match=r"a condition \(the last token is 7\), .*\(--everywhere leaves it out\)"):
        export("where", out=tmp_path / "refused", **common)
    export("where", out=tmp_path / "everywhere", everywhere=True, **common)
    assert (
        "left out: the condition that the last token is 7; the scales apply at every position"
        in capsys.readouterr().out
    )
    export("scaled", form="lora", out=tmp_path / "scaled", folder=own, model=model, dtype="float32")
    assert_same_adapters(tmp_path / "everywhere", tmp_path / "scaled")


def test_several_conditions_are_named_and_left_out_together(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A head that is scaled under both has both of its factors at every position."""
    save_several(tmp_path / "profiles", "product", [(0, 1, 3.0), (0, 2, 3.0)])
    common = {"form": "lora", "folder": tmp_path / "profiles", "model": str(own / "model"), "dtype": "float32"}
    said = r"2 conditions \(the last token is 7; the position is 3 or later\), .*\(--everywhere leaves them out\)"
    with pytest.raises(ExportError, match=said):
        export("several", out=tmp_path / "refused", **common)
    export("several", out=tmp_path / "everywhere", everywhere=True, **common)
    wrote, *left_out, _ = capsys.readouterr().out.splitlines()
    assert "several (2 heads x 1.5..3) at strength 1 as lora" in wrote
    assert left_out == [
        f"left out: the condition that {condition}; the scales apply at every position"
        for condition in ("the last token is 7", "the position is 3 or later")
    ]
    export("product", out=tmp_path / "product", **common)
    assert_same_adapters(tmp_path / "everywhere", tmp_path / "product")


def test_the_scales_of_one_of_several_conditions_are_exported_alone(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_several(tmp_path / "profiles", "second", [(0, 1, 1.5), (0, 2, 3.0)])
    common = {"form": "lora", "folder": tmp_path / "profiles", "model": str(own / "model"), "dtype": "float32"}
    with pytest.raises(ConfigError, match="--condition is given without --everywhere"):
        export("several", out=tmp_path / "refused", condition=2, **common)
    for number in (0, 3):
        said = (
            f"condition is {number}; profile 'several' has scales "
            "(1) where the last token is 7, (2) where the position is 3 or later"
        )
        with pytest.raises(ConfigError, match=re.escape(said)):
            export("several", out=tmp_path / "refused", everywhere=True, condition=number, **common)
    export("several", out=tmp_path / "two", everywhere=True, condition=2, **common)
    wrote, *left_out, _ = capsys.readouterr().out.splitlines()
    assert "several (2 heads x 1.5..3) at strength 1 as lora" in wrote
    assert left_out == ["left out: the condition that the position is 3 or later; the scales apply at every position"]
    export("second", out=tmp_path / "second", **common)
    assert_same_adapters(tmp_path / "two", tmp_path / "second")


def test_a_rank_above_that_of_vllm_is_reported(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.import_module("steering_server.cli.commands.export"), "VLLM_RANKS", (1, 8))
    export("scaled", form="lora", out=tmp_path, folder=own, model=str(own / "model"))
    assert "the rank is 16; vLLM serves adapters up to rank 8" in capsys.readouterr().out


def test_export_of_a_gguf_file_names_llama_cpp(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = write_gguf(tmp_path / "tiny.gguf")
    save_profile(build_profile(load(model), "scaled", heads=[(0, 1, 3.0)]), tmp_path)
    export("scaled", form="lora", out=tmp_path / "out", folder=tmp_path, model=str(model))
    assert "llama.cpp applies the adapter to it after the adapter is converted to GGUF" in capsys.readouterr().out


def test_weights_are_written_in_the_requested_type(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    export("scaled", form="weights", out=tmp_path, folder=own, model=str(own / "model"), dtype="bfloat16")
    assert "as weights, bfloat16" in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((tmp_path / "steering.json").read_text())["base_model"] == "model"


def test_another_models_profile_needs_force(own: Path, tmp_path: Path):
    arguments = {"form": "lora", "out": tmp_path, "folder": own, "model": str(own / "model")}
    with pytest.raises(ProfileMismatch, match="layers is 3 here"):
        export("other", **arguments)
    export("other", **arguments, force=True)
    assert (tmp_path / "adapter_model.safetensors").exists()


WRONG: dict[str, tuple[dict, type[Exception], str]] = {
    "an unknown form": ({"form": "gguf"}, ConfigError, "as is 'gguf'; allowed: weights, lora"),
    "a folder with something in it": ({"out": "."}, ExportError, "is not empty"),
    "a file for a folder": ({"out": "final.json"}, ExportError, "is not a folder"),
    "a final-layer profile": ({"profile": "final"}, ExportError, "self-only attention"),
    "no strength": ({"strength": 0.0}, ExportError, "changes nothing"),
    "an unknown profile": ({"profile": "nope"}, SteeringError, "known profiles"),
}


@pytest.mark.parametrize(("changes", "error", "says"), WRONG.values(), ids=WRONG)
def test_errors_are_reported_before_the_model_is_loaded(own: Path, changes: dict, error: type[Exception], says: str):
    given = {"profile": "scaled", "form": "lora", "out": "new", "folder": own} | changes
    before = sorted(own.rglob("*"))
    with pytest.raises(error, match=re.escape(says)):
        export(**given | {"out": own / given["out"]}, model="./nowhere/model")
    assert sorted(own.rglob("*")) == before
