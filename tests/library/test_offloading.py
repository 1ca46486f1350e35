"""Offloaded weights that the checkpoint's files cannot serve have a folder per model."""

import gc
from pathlib import Path

import pytest
import torch

from steering_profiles.errors import ModelLoadError
from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.offloading import OffloadFolder
from tests.families import build_family
from tests.library.running import TOKENS, logits
from tests.placing import load_placed, save_family


@pytest.fixture
def experts(tmp_path: Path) -> Path:
    """A checkpoint whose experts are stored one by one, and used in one piece."""
    return save_family("qwen3-moe", tmp_path / "model")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def written(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.safetensors"))


def test_weights_stored_as_they_are_used_are_read_from_the_checkpoint(tmp_path: Path, cache: Path):
    load_placed("llama", save_family("llama", tmp_path / "model"), "on disk")
    assert list(cache.iterdir()) == []


def test_two_models_with_the_same_tensor_names_have_folders_of_their_own(tmp_path: Path, experts: Path, cache: Path):
    other = build_family("qwen3-moe", seed=1)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    expected = [logits(load_placed("qwen3-moe", folder)) for folder in (experts, tmp_path / "other")]
    assert not torch.allclose(*expected)
    both = [load_placed("qwen3-moe", folder, "on disk") for folder in (experts, tmp_path / "other")]
    assert len({path.parent for path in written(cache)}) == 2
    for loaded, one in zip(both, expected, strict=True):
        torch.testing.assert_close(logits(loaded), one)


def test_offloaded_weights_are_removed_with_the_model(experts: Path, cache: Path):
    loaded: LoadedModel | None = load_placed("qwen3-moe", experts, "on disk")
    assert written(cache)
    del loaded
    gc.collect()
    assert list(cache.iterdir()) == []


def test_offloaded_weights_are_removed_if_loading_fails(experts: Path, cache: Path):
    weights = experts / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError):
        load_placed("qwen3-moe", experts, "on disk")
    assert list(cache.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_running_one_kept(tmp_path: Path):
    killed, at_work = OffloadFolder(tmp_path), OffloadFolder(tmp_path)
    for folder in (killed, at_work):
        (folder.path / "some.safetensors").write_bytes(b"weights")
    killed._lock.release()  # as the operating system does when a process ends, however it ends
    OffloadFolder(tmp_path).remove()
    assert not killed.path.exists()
    assert (at_work.path / "some.safetensors").exists()
    at_work.remove()


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A cache folder in which nothing can be written, by anybody: its place is taken by a file."""
    (tmp_path / "cache").write_text("no folder")
    return tmp_path / "cache"


def test_the_error_names_a_cache_folder_that_cannot_be_written(experts: Path, sealed: Path):
    with pytest.raises(ModelLoadError, match=rf"the cache folder .{sealed}. cannot be written: .*; choose"):
        load_placed("qwen3-moe", experts, "on disk")


@pytest.mark.parametrize("device_map", [None, "auto", "cpu"])
def test_a_device_map_without_disk_needs_no_folder(experts: Path, sealed: Path, device_map: str | None):
    load_model(ModelSource(model=str(experts), cache=sealed, device_map=device_map))


def test_weights_stored_as_they_are_used_need_no_folder(tmp_path: Path, sealed: Path):
    folder = save_family("llama", tmp_path / "model")
    placed = load_placed("llama", folder, "on disk")
    torch.testing.assert_close(logits(placed), logits(load_placed("llama", folder)))
    assert sealed.is_file()


def test_pickled_weights_are_offloaded_too(tmp_path: Path, cache: Path):
    loaded = build_family("gpt2")
    folder = save_family("gpt2", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(loaded.model.state_dict(), folder / "pytorch_model.bin")
    placed = load_placed("gpt2", folder, "on disk")
    assert written(cache)
    torch.testing.assert_close(logits(placed, TOKENS), logits(loaded, TOKENS))
