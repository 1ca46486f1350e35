"""Models, adapters and pointers as files, and ways to load them."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoConfig, GenerationConfig

from steering_profiles.errors import ModelLoadError
from steering_profiles.export import export_lora
from steering_profiles.models import LoadedModel, MetaModel, ModelSource, load_meta_model, load_model
from tests.builders import build_model, build_profile, build_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 400\n"
LOADS = {
    "model": load_model,
    "meta": load_meta_model,
    "config": partial(load_meta_model, with_tokenizer=False),
}

every_load = pytest.mark.parametrize("load_one", LOADS.values(), ids=LOADS)
with_tokenizer = pytest.mark.parametrize("load_one", [load_model, load_meta_model], ids=["model", "meta"])
Load = Callable[[ModelSource], LoadedModel | MetaModel]


def save(loaded: LoadedModel, folder: Path, **options: Any) -> Path:
    loaded.model.save_pretrained(folder, **options)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def refused(path: Path | str, load_one: Load = load_model) -> str:
    """Return the one-line message with which a model is refused."""
    with pytest.raises(ModelLoadError) as caught:
        load_one(ModelSource(str(path)))
    message = str(caught.value)
    assert "\n" not in message
    return message


def litter(folder: Path) -> None:
    """Write files of another model beside a GGUF file, which transformers would use."""
    tokenizer = build_tokenizer()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[:2]  # the same size, other ids
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text("another template")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("yet another")
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "(", "pad_token": ")"}))
    (folder / "added_tokens.json").write_text(json.dumps({"<more>": 5000}))
    AutoConfig.for_model("gpt2").save_pretrained(folder)
    GenerationConfig(temperature=0.123, do_sample=True, max_new_tokens=3).save_pretrained(folder)
    adapter(build_model("llama", dtype=torch.float32), folder)


def adapter(loaded: LoadedModel, folder: Path, base: str = "someone/the-base") -> Path:
    """Put an adapter into a folder that changes what a model computes, as ``steer export`` and PEFT write them."""
    profile = build_profile(loaded, heads=[(0, 1, 3.0)])
    with TemporaryDirectory() as made:
        export_lora(loaded, profile, Path(made))
        (Path(made) / "steering.json").unlink()
        shutil.copytree(made, folder, dirs_exist_ok=True)
    rewrite(folder / "adapter_config.json", base_model_name_or_path=base)
    return folder


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def in_hub_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of someone/some-model in the hub's cache; the hub does not answer."""
    monkeypatch.setattr("steering_profiles.models.locating.hub_options", lambda _: {"local_files_only": True})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abc")
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    return snapshot
