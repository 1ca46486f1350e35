"""Single files that are not models are refused with what they are."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.builders import build_model
from tests.library.locating.files import Load, every_load, refused, save


class TestSingleFiles:
    """One file of a model is not the model."""

    @pytest.fixture
    def sharded(self, tmp_path: Path) -> Path:
        return save(build_model("llama", dtype=torch.float32), tmp_path / "sharded", max_shard_size="60KB")

    @every_load
    def test_the_error_for_a_weights_file_names_the_folder_to_load(self, load_one: Load, folder: Path):
        message = refused(folder / "model.safetensors", load_one)
        assert f"it is a weights file, not a whole model: load its folder, {folder}" in message

    def test_the_error_for_a_part_of_the_weights_counts_the_parts(self, sharded: Path):
        piece = min(sharded.glob("model-*.safetensors"))
        count = len(list(sharded.glob("model-*.safetensors")))
        assert f"it is a weights file, part 1 of {count}, not a whole model" in refused(piece)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
    def test_a_file_of_pickled_weights_is_refused(self, name: str, tmp_path: Path):
        (tmp_path / name).write_bytes(b"\x80\x02junk")
        assert "it is a weights file, not a whole model: load a folder with all weights" in refused(tmp_path / name)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
    def test_a_json_file_is_refused(self, name: str, sharded: Path):
        assert f"it is a JSON file, not a whole model: load its folder, {sharded}" in (refused(sharded / name))

    def test_a_damaged_weights_file_is_refused(self, folder: Path):
        (folder / "model.safetensors").write_bytes(b"")
        assert "model.safetensors is damaged or incomplete" in refused(folder / "model.safetensors")

    def test_the_error_for_any_other_file_says_what_a_model_is(self, tmp_path: Path):
        (tmp_path / "model.zip").write_bytes(b"PK\x03\x04")
        assert "a model is a folder with a config.json, a hub id or a GGUF file" in refused(tmp_path / "model.zip")

    def test_a_file_in_the_working_folder_is_not_taken_for_a_hub_id(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(folder)
        assert "it is a weights file" in refused("model.safetensors")
        monkeypatch.chdir(folder.parent)
        assert "it is a weights file" in refused("some-model/model.safetensors")

    def test_weights_in_parts_need_their_index(self, sharded: Path):
        (sharded / "model.safetensors.index.json").unlink()
        assert "and their index, model.safetensors.index.json, is missing" in refused(sharded)

    def test_the_error_names_a_missing_part_of_pickled_weights(self, folder: Path):
        (folder / "model.safetensors").unlink()
        names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
        index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        (folder / names[0]).write_bytes(b"")
        assert f"{names[1]} is missing: download it" in refused(folder)

    def test_the_error_for_a_folder_with_a_config_and_gguf_files_names_the_path_of_one(self, folder: Path, file: Path):
        (folder / "model.safetensors").unlink()
        shutil.copy(file, folder)
        assert f"to load one of them, give the path of the file: {folder / 'tiny.gguf'}" in refused(folder)
