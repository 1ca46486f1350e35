"""Git LFS pointers are named."""

from pathlib import Path

import pytest

from steering_profiles.models import load_meta_model
from tests.library.locating.files import POINTER, Load, every_load, refused
from tests.quantised import load


class TestPointers:
    """Files that Git LFS has not fetched are named."""

    @pytest.mark.parametrize(
        "name",
        [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.model",
            "chat_template.jinja",
            "special_tokens_map.json",
            "vocab.json",
            "merges.txt",
            "generation_config.json",
            "model.safetensors",
        ],
    )
    @pytest.mark.usefixtures("_unread")
    def test_a_pointer_in_a_folder_is_named(self, name: str, folder: Path):
        (folder / name).write_bytes(POINTER)
        assert f"{name} is a Git LFS pointer, not the file itself: fetch the file with `git lfs pull`" in (
            refused(folder)
        )

    @pytest.mark.usefixtures("_unread")
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
    def test_a_pointer_to_pickled_weights_is_named(self, name: str, folder: Path):
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"")
        (folder / name).write_bytes(POINTER)
        assert f"{name} is a Git LFS pointer, not the file itself" in refused(folder)

    @pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer.model"])
    def test_a_pointer_is_named_before_other_files_are_read(self, name: str, folder: Path):
        (folder / name).write_bytes(POINTER)
        assert f"{name} is a Git LFS pointer, not the file itself" in refused(folder, load_meta_model)

    @every_load
    @pytest.mark.parametrize("name", ["x.gguf", "x.safetensors", "x.bin", "x.json"])
    def test_a_pointer_given_by_itself_is_named(self, name: str, load_one: Load, tmp_path: Path):
        (tmp_path / name).write_bytes(POINTER)
        assert f"{name} is a Git LFS pointer, not the file itself" in refused(tmp_path / name, load_one)

    def test_a_pointer_to_a_file_that_is_not_read_is_ignored(self, folder: Path):
        for name in ("pytorch_model.bin", "model.gguf", "training_args.bin", "trainer_state.json", "picture.png"):
            (folder / name).write_bytes(POINTER)
        load(folder)
