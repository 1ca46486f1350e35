"""A tokenizer with tokens that the model does not embed is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steering_profiles.errors import ModelLoadError
from steering_profiles.models import ModelSource
from tests.builders import build_model, build_tokenizer
from tests.gguf import write_gguf
from tests.library.locating.files import Load, in_hub_cache, refused, rewrite, save, with_tokenizer
from tests.quantised import load


class TestTokenizers:
    """A tokenizer has no token that the model has no embedding for."""

    def larger(self, folder: Path, more: Callable[[Any], object]) -> Path:
        tokenizer = build_tokenizer()
        more(tokenizer)
        tokenizer.save_pretrained(folder)
        return folder

    @with_tokenizer
    @pytest.mark.usefixtures("_unread")
    @pytest.mark.parametrize(
        ("more", "token"),
        [
            (
                lambda tokenizer: tokenizer.add_tokens(["<new>", "<newer>"]),
                "tokens without an embedding: 2, such as '<new>' with id 260",
            ),
            (
                lambda tokenizer: tokenizer.add_tokens(["<new>"], special_tokens=True),
                "tokens without an embedding: 1, such as '<new>'",
            ),
            (lambda tokenizer: tokenizer.add_special_tokens({"eos_token": "<stop>"}), "'<stop>'"),
        ],
        ids=["added", "special", "end"],
    )
    def test_a_tokenizer_with_other_tokens_is_refused_before_weights_are_read(
        self, load_one: Load, more: Callable, token: str, folder: Path
    ):
        with pytest.raises(
            ModelLoadError, match=f"{token}.* the largest id is 259; use the tokenizer that was published"
        ):
            load_one(ModelSource(str(self.larger(folder, more))))

    @with_tokenizer
    def test_another_models_tokenizer_is_refused(self, load_one: Load, tmp_path: Path):
        folder = save(build_model("llama"), tmp_path / "some-model")
        rewrite(folder / "config.json", vocab_size=200)
        assert "tokens without an embedding: 60" in refused(folder, load_one)

    def test_a_tokenizer_on_the_hub_is_refused_too(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        self.larger(folder, lambda tokenizer: tokenizer.add_tokens(["<new>"]))
        shutil.copytree(folder, in_hub_cache(tmp_path, monkeypatch), dirs_exist_ok=True)
        assert "'<new>' with id 260" in refused("someone/some-model")

    def test_the_tokenizer_of_a_gguf_file_is_refused_too(self, tmp_path: Path):
        assert "tokens without an embedding: 1" in refused(write_gguf(tmp_path / "tiny.gguf", more_tokens=1))

    def test_a_model_may_have_more_embeddings_than_tokens(self, folder: Path):
        build_tokenizer(closers=1).save_pretrained(folder)
        assert len(load(folder).tokenizer) < load(folder).identity.vocab_size

    @pytest.mark.parametrize("role", ["pad_token", "image_token"])
    def test_tokens_for_padding_or_images_need_no_embedding(self, role: str, folder: Path):
        """As in Gemma 3 270M and 1B, whose tokenizer knows images, and in many a Llama 2."""
        tokenizer = build_tokenizer()
        tokenizer.add_tokens(["<other>"], special_tokens=True)
        tokenizer.save_pretrained(folder)
        rewrite(folder / "tokenizer_config.json", **{role: "<other>"})
        assert load(folder).tokenizer.encode("<other>") == [260]
