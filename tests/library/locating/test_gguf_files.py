"""GGUF files of whole models are loaded; others are refused with what they are."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoTokenizer

from steering_profiles.export import export_lora, export_weights
from steering_profiles.models import ModelSource, embedded, load_meta_model, load_model
from steering_profiles.models.gguf import in_own_folder
from tests.builders import CHAT_TEMPLATE, build_profile, build_tokenizer
from tests.gguf import write_gguf
from tests.library.locating.files import Load, every_load, litter, refused, with_tokenizer
from tests.library.running import logits
from tests.quantised import load


class TestGguf:
    """A GGUF file is that file alone."""

    def test_the_chat_template_is_that_of_the_file(self, file: Path):
        assert load(file).tokenizer.chat_template == CHAT_TEMPLATE
        assert load_meta_model(ModelSource(str(file))).tokenizer.chat_template == CHAT_TEMPLATE

    @with_tokenizer
    def test_files_beside_a_gguf_file_change_nothing(self, load_one: Callable, file: Path):
        expected = load_one(ModelSource(str(file)))
        litter(file.parent)
        actual = load_one(ModelSource(str(file)))
        text = "f(x)) naïve 漢字"
        assert actual.tokenizer.encode(text) == expected.tokenizer.encode(text)
        assert actual.tokenizer.get_vocab() == expected.tokenizer.get_vocab()
        assert actual.tokenizer.special_tokens_map == expected.tokenizer.special_tokens_map
        assert actual.tokenizer.chat_template == expected.tokenizer.chat_template
        assert actual.model.config.to_dict() == expected.model.config.to_dict()
        assert actual.model.generation_config.to_dict() == expected.model.generation_config.to_dict()
        assert actual.identity == expected.identity
        if load_one is load_model:
            assert torch.equal(logits(actual), logits(expected))

    def test_the_model_has_the_path_of_the_file_and_not_that_of_a_link_to_it(self, file: Path):
        for loaded in (load(file), load_meta_model(ModelSource(str(file)))):
            assert loaded.name == loaded.identity.id == "tiny"
            assert loaded.model.name_or_path == loaded.model.config.name_or_path == str(file)
            assert loaded.tokenizer.name_or_path == str(file)

    def test_an_export_has_the_name_of_the_file_as_its_base_model(self, file: Path, tmp_path: Path):
        loaded = load(file, dtype="float32")
        profile = build_profile(loaded, heads=[(0, 1, 3.0)])
        adapter = export_lora(loaded, profile, tmp_path / "lora")
        weights = export_weights(loaded, profile, tmp_path / "weights")
        assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
        for out in (adapter, weights):
            assert json.loads((out / "steering.json").read_text())["base_model"] == "tiny"
            for path in out.glob("*.json"):
                assert str(tmp_path) not in path.read_text()
                assert "steering-server-" not in path.read_text()

    def test_an_error_names_the_path_of_the_file(self, file: Path):
        file.write_bytes(file.read_bytes()[:-2000])
        message = refused(file)
        assert "steering-server-" not in message.replace(str(file), "")

    def test_loading_leaves_no_temporary_files(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        load(file)
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_without_a_folder_for_temporary_files_the_error_names_tmpdir(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("tempfile.tempdir", "/nowhere")
        assert "set TMPDIR to a folder that can be written" in refused(file)

    @pytest.mark.parametrize("name", ["tiny.GGUF", "tiny.Gguf", "tiny.Q8_0.gguf", "sha256-0123abc"])
    def test_a_gguf_file_may_have_any_name(self, name: str, file: Path):
        named = file.rename(file.with_name(name))
        loaded = load(named)
        assert loaded.name == named.stem
        assert loaded.model.name_or_path == str(named)

    def test_a_token_that_transformers_adds_to_the_tokenizer_is_removed(self, file: Path):
        with in_own_folder(file) as link:
            plain = AutoTokenizer.from_pretrained(link.parent, gguf_file=link.name)
        tokenizer = load(file).tokenizer
        assert len(plain) == len(build_tokenizer()) + 1
        assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
        assert max(tokenizer.encode("<|endoftext|>")) < len(build_tokenizer())

    def test_a_token_that_transformers_adds_to_the_default_models_tokenizer_is_removed(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(embedded, "find_gguf", lambda: file)
        expected = load(file, dtype="float32")
        litter(file.parent)
        actual = load_model(ModelSource(cache=tmp_path / "cache", dtype="float32"))
        assert actual.tokenizer.get_vocab() == expected.tokenizer.get_vocab()
        assert actual.tokenizer.chat_template == CHAT_TEMPLATE
        assert actual.identity.fingerprint == expected.identity.fingerprint

    @every_load
    def test_the_error_names_the_part_of_a_split_file(self, load_one: Load, file: Path):
        piece = file.rename(file.with_name("tiny-00002-of-00003.gguf"))
        assert "tiny-00002-of-00003.gguf is part 2 of 3 of a model: merge the parts" in refused(piece, load_one)

    def test_a_renamed_part_is_recognised_by_its_header(self, tmp_path: Path):
        facts = {"split.no": 0, "split.count": 3}
        assert "part 1 of 3" in refused(write_gguf(tmp_path / "renamed.gguf", facts=facts))

    @every_load
    @pytest.mark.parametrize(
        ("facts", "says"),
        [
            (
                {"general.type": "adapter", "adapter.type": "lora"},
                "it is a LoRA adapter of an unnamed model",
            ),
            ({"general.type": "adapter", "general.base_model.0.name": "Tiny"}, "it is a LoRA adapter of model Tiny"),
            ({"general.type": "mmproj"}, "is a projector for images or sound (mmproj)"),
            ({"general.type": "imatrix"}, "is an importance matrix"),
            ({"general.type": "something"}, "is a file of type something, not a model"),
        ],
        ids=lambda value: value.get("general.type") if isinstance(value, dict) else "",
    )
    def test_the_error_names_the_type_of_a_file_that_is_not_a_model(
        self, load_one: Load, facts: dict[str, str], says: str, tmp_path: Path
    ):
        assert says in refused(write_gguf(tmp_path / "other.gguf", facts=facts), load_one)

    @pytest.mark.parametrize(
        ("architecture", "says"), [("clip", "(mmproj)"), ("controlvector", "a control vector"), (None, "a vocabulary")]
    )
    def test_a_file_without_a_type_is_recognised_by_its_content(
        self, architecture: str | None, says: str, tmp_path: Path
    ):
        path = tmp_path / "other.gguf"
        writer = gguf.GGUFWriter(path, architecture or "llama")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert says in refused(path)

    def test_a_file_that_is_not_gguf_is_refused_in_spite_of_its_name(self, tmp_path: Path):
        (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04something else")
        assert "x.gguf is not a GGUF file in spite of its name" in refused(tmp_path / "x.gguf")

    @pytest.mark.parametrize("kept", [4, 12, 24, 40, 200, 3000])
    def test_a_file_with_an_incomplete_header_is_refused(self, kept: int, file: Path):
        file.write_bytes(file.read_bytes()[:kept])
        assert "tiny.gguf is damaged or incomplete: download it again" in refused(file)

    @pytest.mark.parametrize("missing", [200, 3000, 20_000])
    def test_a_file_with_incomplete_tensors_is_refused(self, missing: int, file: Path):
        file.write_bytes(file.read_bytes()[:-missing])
        assert "tiny.gguf is damaged or incomplete: download it again" in refused(file)

    def test_the_error_for_a_folder_of_gguf_files_names_the_path_of_one(self, file: Path):
        message = refused(file.parent)
        assert "has no config.json; to load one of its GGUF files" in message
        assert str(file) in message
