"""PEFT adapters are refused, beside a model and in place of one."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.builders import build_model
from tests.library.locating.files import Load, adapter, every_load, in_hub_cache, refused


class TestAdapters:
    """An adapter is no model, and none becomes a part of one."""

    @pytest.fixture(params=[True, False], ids=["with peft", "without peft"])
    def _peft(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if not request.param:
            for module in ("models.auto.auto_factory", "integrations.peft"):
                monkeypatch.setattr(f"transformers.{module}.is_peft_available", lambda *_: False)

    @every_load
    @pytest.mark.usefixtures("_peft", "_unread")
    def test_an_adapter_beside_the_weights_is_refused(self, load_one: Load, folder: Path):
        adapter(build_model("llama", dtype=torch.float32), folder)
        message = refused(folder, load_one)
        assert "there is an adapter beside its weights (adapter_config.json)" in message
        assert message.endswith(
            "merge it into the weights with merge_and_unload of PEFT, or remove adapter_config.json"
        )

    def test_an_adapter_with_an_invalid_config_is_refused_too(self, folder: Path):
        (folder / "adapter_config.json").write_text("{")
        assert "there is an adapter beside its weights" in refused(folder)

    @every_load
    @pytest.mark.usefixtures("_peft")
    def test_the_error_for_an_adapter_alone_names_its_base_model(self, load_one: Load, tmp_path: Path):
        alone = adapter(build_model("llama", dtype=torch.float32), tmp_path / "adapter")
        assert "it is a LoRA adapter of model someone/the-base, not a model: load that model" in refused(
            alone, load_one
        )

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("{", "a LoRA adapter of an unnamed model"),
            ("[]", "a LoRA adapter of an unnamed model"),
            ('{"peft_type": "IA3", "base_model_name_or_path": "a/b"}', "a PEFT adapter of model a/b"),
            ('{"peft_type": [1], "base_model_name_or_path": 2}', "a PEFT adapter of an unnamed model"),
            ('{"peft_type": "LORA", "base_model_name_or_path": null}', "a LoRA adapter of an unnamed model"),
        ],
    )
    def test_the_error_names_type_and_base_model_as_far_as_the_config_has_them(
        self, content: str, says: str, tmp_path: Path
    ):
        (tmp_path / "adapter_config.json").write_text(content)
        assert says in refused(tmp_path)

    @pytest.mark.usefixtures("_peft")
    @pytest.mark.parametrize("whole", [True, False], ids=["beside the weights", "alone"])
    def test_an_adapter_on_the_hub_is_refused_too(
        self, whole: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        snapshot = in_hub_cache(tmp_path, monkeypatch)
        if whole:
            shutil.copytree(folder, snapshot, dirs_exist_ok=True)
        adapter(build_model("llama", dtype=torch.float32), snapshot)
        assert ("beside its weights" if whole else "of model someone/the-base") in refused("someone/some-model")

    def test_an_adapter_that_only_transformers_finds_is_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        adapter(build_model("llama", dtype=torch.float32), folder)
        monkeypatch.setattr("steering_profiles.models.adapters.find_adapter_config_file", lambda *_, **__: None)
        assert "transformers has applied an adapter that is beside its weights" in refused(folder)

    def test_a_single_file_of_an_adapter_is_refused_as_an_adapter(self, tmp_path: Path):
        alone = adapter(build_model("llama", dtype=torch.float32), tmp_path / "adapter")
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert "a LoRA adapter of model someone/the-base" in refused(alone / name)
        renamed = (alone / "adapter_model.safetensors").rename(tmp_path / "mine.safetensors")
        assert "a LoRA adapter of an unnamed model" in refused(renamed)
