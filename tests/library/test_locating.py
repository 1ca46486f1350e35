"""A model is what its name says and nothing beside it; what is none is named for what it is."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import pytest
import torch
from huggingface_hub import constants
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from steering_profiles.errors import ModelLoadError
from steering_profiles.export import export_lora, export_weights
from steering_profiles.models import (
    LoadedModel,
    MetaModel,
    ModelSource,
    embedded,
    load_meta_model,
    load_model,
    loading,
)
from steering_profiles.models.gguf import alone
from tests.builders import CHAT_TEMPLATE, build_model, build_profile, build_tokenizer
from tests.gguf import write_gguf
from tests.library.running import logits
from tests.quantised import load

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 400\n"
LOADS = {
    "model": load_model,
    "meta": load_meta_model,
    "config": partial(load_meta_model, with_tokenizer=False),
}

every_load = pytest.mark.parametrize("load_one", LOADS.values(), ids=LOADS)
with_tokenizer = pytest.mark.parametrize("load_one", [load_model, load_meta_model], ids=["model", "meta"])
Load = Callable[[ModelSource], LoadedModel | MetaModel]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(build_model("llama", dtype=torch.float32), tmp_path / "some-model")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "gguf" / "tiny.gguf")


@pytest.fixture
def _unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever begins to read weights fails the test."""
    monkeypatch.setattr(
        loading.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the weights were read")
    )


def save(loaded: LoadedModel, folder: Path, **options: Any) -> Path:
    loaded.model.save_pretrained(folder, **options)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def refused(path: Path | str, load_one: Load = load_model) -> str:
    """Refused in one line; returns it."""
    with pytest.raises(ModelLoadError) as caught:
        load_one(ModelSource(str(path)))
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestGguf:
    """A GGUF file is that file alone."""

    def test_its_chat_template_arrives(self, file: Path):
        assert load(file).tokenizer.chat_template == CHAT_TEMPLATE
        assert load_meta_model(ModelSource(str(file))).tokenizer.chat_template == CHAT_TEMPLATE

    @with_tokenizer
    def test_what_lies_beside_it_changes_nothing(self, load_one: Callable, file: Path):
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

    def test_it_is_known_by_its_own_path_not_by_where_transformers_found_it(self, file: Path):
        for loaded in (load(file), load_meta_model(ModelSource(str(file)))):
            assert loaded.name == loaded.identity.id == "tiny"
            assert loaded.model.name_or_path == loaded.model.config.name_or_path == str(file)
            assert loaded.tokenizer.name_or_path == str(file)

    def test_exported_it_is_known_by_its_name(self, file: Path, tmp_path: Path):
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

    def test_an_error_names_the_file_where_it_is(self, file: Path):
        file.write_bytes(file.read_bytes()[:-2000])
        message = refused(file)
        assert "steering-server-" not in message.replace(str(file), "")

    def test_nothing_is_left_in_the_folder_of_temporary_files(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        load(file)
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_without_a_folder_for_temporary_files_it_says_which_one_it_takes(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("tempfile.tempdir", "/nowhere")
        assert "set TMPDIR to one that can be" in refused(file)

    @pytest.mark.parametrize("name", ["tiny.GGUF", "tiny.Gguf", "tiny.Q8_0.gguf", "sha256-0123abc"])
    def test_it_is_one_whatever_it_is_called(self, name: str, file: Path):
        named = file.rename(file.with_name(name))
        loaded = load(named)
        assert loaded.name == named.stem
        assert loaded.model.name_or_path == str(named)

    def test_a_token_that_transformers_adds_to_its_own_is_taken_out(self, file: Path):
        with alone(file) as link:
            plain = AutoTokenizer.from_pretrained(link.parent, gguf_file=link.name)
        tokenizer = load(file).tokenizer
        assert len(plain) == len(build_tokenizer()) + 1
        assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
        assert max(tokenizer.encode("<|endoftext|>")) < len(build_tokenizer())

    def test_of_that_of_the_default_model_the_same_is_true(
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
    def test_one_of_several_pieces_is_named(self, load_one: Load, file: Path):
        piece = file.rename(file.with_name("tiny-00002-of-00003.gguf"))
        assert "tiny-00002-of-00003.gguf is piece 2 of 3 of a model: join the pieces" in refused(piece, load_one)

    def test_a_piece_is_known_by_what_it_says_too(self, tmp_path: Path):
        facts = {"split.no": 0, "split.count": 3}
        assert "piece 1 of 3" in refused(write_gguf(tmp_path / "renamed.gguf", facts=facts))

    @every_load
    @pytest.mark.parametrize(
        ("facts", "says"),
        [
            (
                {"general.type": "adapter", "adapter.type": "lora"},
                "it is a LoRA adapter of a model that it does not name",
            ),
            ({"general.type": "adapter", "general.base_model.0.name": "Tiny"}, "it is a LoRA adapter of model Tiny"),
            ({"general.type": "mmproj"}, "is a projector of images or sound (mmproj)"),
            ({"general.type": "imatrix"}, "is an importance matrix"),
            ({"general.type": "something"}, "is of the type something, not a model"),
        ],
        ids=lambda value: value.get("general.type") if isinstance(value, dict) else "",
    )
    def test_what_is_no_model_is_named(self, load_one: Load, facts: dict[str, str], says: str, tmp_path: Path):
        assert says in refused(write_gguf(tmp_path / "other.gguf", facts=facts), load_one)

    @pytest.mark.parametrize(
        ("architecture", "says"), [("clip", "(mmproj)"), ("controlvector", "a control vector"), (None, "a vocabulary")]
    )
    def test_what_has_no_type_is_named_by_what_it_holds(self, architecture: str | None, says: str, tmp_path: Path):
        path = tmp_path / "other.gguf"
        writer = gguf.GGUFWriter(path, architecture or "llama")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert says in refused(path)

    def test_what_is_no_gguf_file_is_said_to_be_none(self, tmp_path: Path):
        (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04something else")
        assert "x.gguf is no GGUF file, whatever its name says" in refused(tmp_path / "x.gguf")

    @pytest.mark.parametrize("kept", [4, 12, 24, 40, 200, 3000])
    def test_a_header_that_is_cut_off_is_said_to_be(self, kept: int, file: Path):
        file.write_bytes(file.read_bytes()[:kept])
        assert "tiny.gguf is damaged or cut off: download it again" in refused(file)

    @pytest.mark.parametrize("missing", [200, 3000, 20_000])
    def test_tensors_that_are_cut_off_are_said_to_be(self, missing: int, file: Path):
        file.write_bytes(file.read_bytes()[:-missing])
        assert "tiny.gguf is damaged or cut off: download it again" in refused(file)

    def test_a_folder_of_gguf_files_says_that_one_is_given_by_itself(self, file: Path):
        message = refused(file.parent)
        assert "holds no config.json, but GGUF files" in message
        assert str(file) in message


def litter(folder: Path) -> None:
    """Put beside a GGUF file what is another model's, and would be taken for its own."""
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


class TestAdapters:
    """An adapter is no model, and none becomes a part of one."""

    @pytest.fixture(params=[True, False], ids=["with peft", "without peft"])
    def _peft(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if not request.param:
            for module in ("models.auto.auto_factory", "integrations.peft"):
                monkeypatch.setattr(f"transformers.{module}.is_peft_available", lambda *_: False)

    @every_load
    @pytest.mark.usefixtures("_peft", "_unread")
    def test_one_beside_the_weights_is_refused(self, load_one: Load, folder: Path):
        adapter(build_model("llama", dtype=torch.float32), folder)
        message = refused(folder, load_one)
        assert "an adapter lies beside its weights (adapter_config.json)" in message
        assert message.endswith(
            "merge it into the weights with merge_and_unload of PEFT, or remove adapter_config.json"
        )

    def test_one_that_cannot_be_read_is_refused_too(self, folder: Path):
        (folder / "adapter_config.json").write_text("{")
        assert "an adapter lies beside its weights" in refused(folder)

    @every_load
    @pytest.mark.usefixtures("_peft")
    def test_one_alone_is_named_with_its_model(self, load_one: Load, tmp_path: Path):
        alone = adapter(build_model("llama", dtype=torch.float32), tmp_path / "adapter")
        assert "it is a LoRA adapter of model someone/the-base, not a model by itself" in refused(alone, load_one)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("{", "a LoRA adapter of a model that it does not name"),
            ("[]", "a LoRA adapter of a model that it does not name"),
            ('{"peft_type": "IA3", "base_model_name_or_path": "a/b"}', "an adapter of PEFT of model a/b"),
            ('{"peft_type": [1], "base_model_name_or_path": 2}', "an adapter of PEFT of a model that it does not name"),
            ('{"peft_type": "LORA", "base_model_name_or_path": null}', "a LoRA adapter of a model that it does not"),
        ],
    )
    def test_it_is_named_as_far_as_it_says_what_it_is(self, content: str, says: str, tmp_path: Path):
        (tmp_path / "adapter_config.json").write_text(content)
        assert says in refused(tmp_path)

    @pytest.mark.usefixtures("_peft")
    @pytest.mark.parametrize("whole", [True, False], ids=["beside the weights", "alone"])
    def test_one_of_the_hub_is_refused_as_well(
        self, whole: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        snapshot = in_hub_cache(tmp_path, monkeypatch)
        if whole:
            shutil.copytree(folder, snapshot, dirs_exist_ok=True)
        adapter(build_model("llama", dtype=torch.float32), snapshot)
        assert ("beside its weights" if whole else "of model someone/the-base") in refused("someone/some-model")

    def test_one_that_transformers_finds_all_the_same_is_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        adapter(build_model("llama", dtype=torch.float32), folder)
        monkeypatch.setattr("steering_profiles.models.adapters.find_adapter_config_file", lambda *_, **__: None)
        assert "an adapter was found beside its weights and applied to them" in refused(folder)

    def test_its_files_are_named_for_what_they_are(self, tmp_path: Path):
        alone = adapter(build_model("llama", dtype=torch.float32), tmp_path / "adapter")
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert "a LoRA adapter of model someone/the-base" in refused(alone / name)
        renamed = (alone / "adapter_model.safetensors").rename(tmp_path / "mine.safetensors")
        assert "a LoRA adapter of a model that it does not name" in refused(renamed)


def in_hub_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a place for someone/some-model, downloaded before, while the hub gives no answer."""
    monkeypatch.setattr("steering_profiles.models.locating.hub_options", lambda _: {"local_files_only": True})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abc")
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    return snapshot


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
                "2 of the tokens, such as '<new>' with id 260",
            ),
            (
                lambda tokenizer: tokenizer.add_tokens(["<new>"], special_tokens=True),
                "1 of the tokens, such as '<new>'",
            ),
            (lambda tokenizer: tokenizer.add_special_tokens({"eos_token": "<stop>"}), "'<stop>'"),
        ],
        ids=["added", "special", "end"],
    )
    def test_one_that_has_is_refused_before_weights_are_read(
        self, load_one: Load, more: Callable, token: str, folder: Path
    ):
        with pytest.raises(
            ModelLoadError, match=f"{token}.* the last id is 259; use the tokenizer that the model came"
        ):
            load_one(ModelSource(str(self.larger(folder, more))))

    @with_tokenizer
    def test_another_models_is_refused(self, load_one: Load, tmp_path: Path):
        folder = save(build_model("llama"), tmp_path / "some-model")
        rewrite(folder / "config.json", vocab_size=200)
        assert "no embedding for 60 of the tokens" in refused(folder, load_one)

    def test_one_of_the_hub_is_refused_as_well(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        self.larger(folder, lambda tokenizer: tokenizer.add_tokens(["<new>"]))
        shutil.copytree(folder, in_hub_cache(tmp_path, monkeypatch), dirs_exist_ok=True)
        assert "'<new>' with id 260" in refused("someone/some-model")

    def test_a_gguf_files_is_refused_as_well(self, tmp_path: Path):
        assert "no embedding for 1 of the tokens" in refused(write_gguf(tmp_path / "tiny.gguf", more_tokens=1))

    def test_a_table_that_is_padded_is_none_the_worse_for_it(self, folder: Path):
        build_tokenizer(closers=1).save_pretrained(folder)
        assert len(load(folder).tokenizer) < load(folder).identity.vocab_size

    @pytest.mark.parametrize("role", ["pad_token", "image_token"])
    def test_one_of_padding_or_images_needs_none(self, role: str, folder: Path):
        """As in Gemma 3 270M and 1B, whose tokenizer knows images, and in many a Llama 2."""
        tokenizer = build_tokenizer()
        tokenizer.add_tokens(["<other>"], special_tokens=True)
        tokenizer.save_pretrained(folder)
        rewrite(folder / "tokenizer_config.json", **{role: "<other>"})
        assert load(folder).tokenizer.encode("<other>") == [260]


class TestPointers:
    """What Git LFS has not fetched yet is named."""

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
    def test_in_a_folder(self, name: str, folder: Path):
        (folder / name).write_bytes(POINTER)
        assert f"{name} is not the file itself but a pointer of Git LFS to it: fetch it with `git lfs pull`" in (
            refused(folder)
        )

    @pytest.mark.usefixtures("_unread")
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
    def test_of_pickled_weights(self, name: str, folder: Path):
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"")
        (folder / name).write_bytes(POINTER)
        assert f"{name} is not the file itself" in refused(folder)

    @pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer.model"])
    def test_before_anything_else_of_it_is_looked_at(self, name: str, folder: Path):
        (folder / name).write_bytes(POINTER)
        assert f"{name} is not the file itself" in refused(folder, load_meta_model)

    @every_load
    @pytest.mark.parametrize("name", ["x.gguf", "x.safetensors", "x.bin", "x.json"])
    def test_by_itself(self, name: str, load_one: Load, tmp_path: Path):
        (tmp_path / name).write_bytes(POINTER)
        assert f"{name} is not the file itself" in refused(tmp_path / name, load_one)

    def test_of_what_nobody_reads_is_none_of_our_business(self, folder: Path):
        for name in ("pytorch_model.bin", "model.gguf", "training_args.bin", "trainer_state.json", "picture.png"):
            (folder / name).write_bytes(POINTER)
        load(folder)


class TestSingleFiles:
    """One file of a model is not the model."""

    @pytest.fixture
    def sharded(self, tmp_path: Path) -> Path:
        return save(build_model("llama", dtype=torch.float32), tmp_path / "sharded", max_shard_size="60KB")

    @every_load
    def test_weights_are_named_with_the_folder_to_give_instead(self, load_one: Load, folder: Path):
        message = refused(folder / "model.safetensors", load_one)
        assert f"it is a file of weights, not a whole model: load the folder that it is in: {folder}" in message

    def test_a_piece_of_weights_is_said_to_be_one(self, sharded: Path):
        piece = min(sharded.glob("model-*.safetensors"))
        count = len(list(sharded.glob("model-*.safetensors")))
        assert f"it is a file of weights, piece 1 of {count}, not a whole model" in refused(piece)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
    def test_pickled_weights_are_named(self, name: str, tmp_path: Path):
        (tmp_path / name).write_bytes(b"\x80\x02junk")
        assert "it is a file of weights, not a whole model: load a folder that holds all" in refused(tmp_path / name)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
    def test_json_is_named(self, name: str, sharded: Path):
        assert f"it is a JSON file, not a whole model: load the folder that it is in: {sharded}" in (
            refused(sharded / name)
        )

    def test_a_damaged_one_is_said_to_be_damaged(self, folder: Path):
        (folder / "model.safetensors").write_bytes(b"")
        assert "model.safetensors is damaged or cut off" in refused(folder / "model.safetensors")

    def test_of_any_other_it_is_said_what_a_model_is(self, tmp_path: Path):
        (tmp_path / "model.zip").write_bytes(b"PK\x03\x04")
        assert "a model is a folder with its config.json, a hub id or a GGUF file" in refused(tmp_path / "model.zip")

    def test_a_file_in_the_working_folder_is_no_hub_id(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(folder)
        assert "it is a file of weights" in refused("model.safetensors")
        monkeypatch.chdir(folder.parent)
        assert "it is a file of weights" in refused("some-model/model.safetensors")

    def test_pieces_without_their_index_are_said_to_lack_it(self, sharded: Path):
        (sharded / "model.safetensors.index.json").unlink()
        assert "and model.safetensors.index.json, which says what is in which, is missing" in refused(sharded)

    def test_a_missing_piece_of_pickled_weights_is_named(self, folder: Path):
        (folder / "model.safetensors").unlink()
        names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
        index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        (folder / names[0]).write_bytes(b"")
        assert f"{names[1]} is missing: download it too" in refused(folder)

    def test_a_folder_of_a_config_and_gguf_files_says_that_one_is_given_by_itself(self, folder: Path, file: Path):
        (folder / "model.safetensors").unlink()
        shutil.copy(file, folder)
        assert f"load one of those by itself: {folder / 'tiny.gguf'}" in refused(folder)
