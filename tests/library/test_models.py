"""Models load from every kind of source, and errors are one line."""

import json
import logging
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, constants
from transformers import BertConfig, BertForMaskedLM, BloomConfig, BloomForCausalLM

from steering_profiles.errors import ModelLoadError, UnknownArchitecture
from steering_profiles.models import LoadedModel, ModelSource, assemble, hub, load_meta_model, load_model, loading
from steering_profiles.models.embedded import find_gguf
from steering_profiles.models.hub import hub_options
from tests.builders import build_model, build_tokenizer, every_effect
from tests.library.running import logits, steered_logits


def save(loaded: LoadedModel, folder: Path) -> Path:
    """Save a model the way a hub model is."""
    loaded.model.float().save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny: LoadedModel, tmp_path: Path) -> Path:
    return save(tiny, tmp_path / "some-model")


def load(folder: Path, **options: Any) -> LoadedModel:
    return load_model(ModelSource(model=str(folder), cache=folder.parent / "cache", **options))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_loaded_model_computes_what_the_saved_one_did(tiny: LoadedModel, folder: Path):
    loaded = load(folder, dtype="float32")
    assert loaded.name == "some-model"
    assert not loaded.model.training
    torch.testing.assert_close(logits(loaded), logits(tiny))
    text = "f(x)) naïve 漢字"
    assert loaded.tokenizer.encode(text) == tiny.tokenizer.encode(text)


def test_the_identity_needs_no_weights(folder: Path):
    identity = load(folder).identity
    (folder / "model.safetensors").unlink()
    assert load_meta_model(ModelSource(model=str(folder))).identity == identity


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_model_has_the_requested_dtype(folder: Path, dtype: str):
    loaded = load(folder, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)} == {loaded.dtype}


def test_the_default_dtype_is_float32_or_half_precision(folder: Path):
    assert load(folder).dtype in (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    "options",
    [{"device_map": "cpu"}, {"device_map": {"": "cpu"}}, {"device_map": "auto", "max_memory": {"cpu": "1GiB"}}],
    ids=str,
)
def test_accelerate_applies_the_device_map(folder: Path, options: dict):
    assert load(folder, **options).input_device == torch.device("cpu")


def test_a_model_on_disk_is_steered_like_one_in_memory(tiny: LoadedModel, folder: Path):
    loaded = load(folder, dtype="float32", device_map="auto", max_memory={"cpu": "1KB"})
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"meta"}
    assert loaded.input_device == torch.device("cpu")
    steerings = every_effect(tiny)
    actual = steered_logits(loaded, *every_effect(loaded).values())
    torch.testing.assert_close(actual, steered_logits(tiny, *steerings.values()), atol=1e-4, rtol=1e-4)


def test_max_memory_without_a_device_map_is_refused(folder: Path):
    with pytest.raises(
        ModelLoadError, match="max_memory needs an automatic device map, such as auto; no device map is given"
    ):
        load(folder, max_memory={"cpu": "1GiB"})


@pytest.mark.parametrize(
    "options", [{"device_map": "sideways"}, {"device_map": "auto", "max_memory": {"cpu": "lots"}}], ids=str
)
def test_an_unknown_placement_is_an_error_of_one_line(folder: Path, options: dict):
    one_line(lambda: load(folder, **options))


def test_a_device_map_without_entries_is_refused(tmp_path: Path):
    folder = save(build_model("llama"), tmp_path / "some-model")
    assert "the device map has no device for" in one_line(lambda: load(folder, device_map={}))


def test_a_device_map_may_name_parts_of_the_model(tmp_path: Path):
    folder = save(build_model("llama", dtype=torch.float32), tmp_path / "some-model")
    parts = {"model.embed_tokens": "cpu", "model.layers": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    loaded = load(folder, dtype="float32", device_map=parts)
    torch.testing.assert_close(logits(loaded), logits(build_model("llama", dtype=torch.float32)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_missing_device_is_an_error_of_one_line(folder: Path):
    one_line(lambda: load(folder, device_map="cuda:0"))


def one_line(act: Callable[[], object]) -> str:
    """Return the one-line message of the error."""
    with pytest.raises(ModelLoadError, match="cannot load model") as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("path", ["./nowhere/at-all", "nowhere.gguf", "/nowhere", "~/nowhere", "a/b/c"])
def test_the_error_names_a_path_that_does_not_exist(path: str):
    with pytest.raises(ModelLoadError, match=rf"'{path}' does not exist"):
        load_model(ModelSource(model=path))


def test_a_path_in_the_home_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model(ModelSource(model="~/some-model")).name == "some-model"


def test_an_unknown_dtype_is_refused_with_the_known_ones(folder: Path):
    with pytest.raises(ModelLoadError, match="'int3'; allowed: auto, float32"):
        load_model(ModelSource(model=str(folder), dtype="int3"))  # type: ignore[arg-type]


def test_the_error_names_the_file_that_a_folder_lacks(tmp_path: Path):
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\x00" * 400),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"{}"),
        ("config.json", b"\xff"),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("tokenizer_config.json", b"{"),
    ],
)
def test_a_damaged_file_is_an_error_of_one_line(folder: Path, file: str, content: bytes):
    (folder / file).write_bytes(content)
    one_line(lambda: load(folder))


def test_an_invalid_config_is_an_error_that_says_so(folder: Path):
    rewrite(folder / "config.json", quantization_config="four bits")
    assert "its config.json is invalid: " in one_line(lambda: load(folder))


SHARDS = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model whose weights lie in several files."""
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    loaded.tokenizer.save_pretrained(tmp_path / "sharded")
    return tmp_path / "sharded"


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test when weights are read."""
    monkeypatch.setattr(
        loading.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the weights were read")
    )


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-1000], lambda content: b"", lambda content: b"version https://git-lfs"],
    ids=["cut off", "empty", "text"],
)
def test_the_error_names_a_damaged_weights_file_before_any_is_read(folder: Path, sharded: Path, change: Callable):
    single, last = folder / "model.safetensors", max(sharded.glob("model-*.safetensors"))
    for weights in (single, last):
        weights.write_bytes(change(weights.read_bytes()))
    assert "model.safetensors is damaged or incomplete" in one_line(lambda: load(folder))
    assert f"{last.name} is damaged or incomplete" in one_line(lambda: load(sharded))


@pytest.mark.usefixtures("unread")
def test_the_error_names_a_weights_file_that_only_the_index_has(sharded: Path):
    last = max(sharded.glob("model-*.safetensors"))
    last.unlink()
    assert f"{last.name} is missing: download it" in one_line(lambda: load(sharded))


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weight_map": 1}', '{"weight_map": {"a": 1}}'])
def test_the_error_names_a_damaged_index_of_weights(sharded: Path, content: str):
    (sharded / SHARDS).write_text(content)
    assert f"{SHARDS} is damaged" in one_line(lambda: load(sharded))


def test_weights_in_several_files_are_the_same_model(sharded: Path):
    whole = build_model("llama", dtype=torch.float32)
    torch.testing.assert_close(logits(load(sharded, dtype="float32")), logits(whole))


def test_the_error_names_a_missing_weights_file(folder: Path):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in one_line(lambda: load(folder))


@pytest.mark.parametrize("content", [b"", b"\x80\x02junk", pickle.dumps({"a": 1}, protocol=2), b"PK\x03\x04junk"])
def test_damaged_pickled_weights_are_an_error_of_one_line(folder: Path, content: bytes):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    one_line(lambda: load(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0},
        {"hidden_size": "wide"},
        {"hidden_act": "no-such-function"},
        {"model_type": "no-such-type"},
        {"vocab_size": -1},
        {"dtype": "no-such-type"},
    ],
    ids=str,
)
def test_a_config_with_impossible_values_is_an_error_of_one_line(tmp_path: Path, change: dict):
    folder = save(build_model("llama"), tmp_path / "some-model")
    rewrite(folder / "config.json", **change)
    one_line(lambda: load(folder))


@pytest.mark.parametrize("layers", [0, -1])
def test_a_config_without_layers_is_refused(tmp_path: Path, layers: int):
    folder = save(build_model("llama"), tmp_path / "some-model")
    rewrite(folder / "config.json", num_hidden_layers=layers)
    with pytest.raises(UnknownArchitecture, match="is not a list of blocks"):
        load(folder)


def test_weights_that_the_file_lacks_are_never_made_up(tmp_path: Path):
    folder = save(build_model("llama", layers=2), tmp_path / "some-model")
    rewrite(folder / "config.json", num_hidden_layers=3)
    assert "9 tensors are missing, such as model.layers.2." in one_line(lambda: load(folder))


def test_weights_of_the_wrong_size_are_never_made_up(tmp_path: Path):
    folder = save(build_model("llama"), tmp_path / "some-model")
    rewrite(folder / "config.json", intermediate_size=48)
    message = one_line(lambda: load(folder))
    assert "down_proj.weight has shape [24, 40]; the config needs [24, 48]" in message


@pytest.mark.parametrize("content", [b"", b"no GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 200])
def test_a_damaged_gguf_file_is_an_error_of_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    one_line(lambda: load(path))


def test_an_incomplete_gguf_file_is_an_error_of_one_line(tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(find_gguf().read_bytes()[:3_000_000])
    one_line(lambda: load(path))


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        (BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=8, n_layer=1, n_head=2)), "BloomForCausalLM"),
        (
            BertForMaskedLM(BertConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)),
            "BertForMaskedLM",
        ),
    ],
)
def test_an_unknown_architecture_is_refused_before_its_weights_are_read(tmp_path: Path, model, architecture: str):
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnknownArchitecture, match=rf"{architecture} is not known.*GPT2LMHeadModel, .*LlamaForCausalLM"):
        load(tmp_path)


def test_an_unknown_architecture_in_memory_is_refused_too():
    tokenizer = build_tokenizer()
    model = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(UnknownArchitecture):
        assemble("bloom", model, tokenizer)


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder = save(build_model("llama"), tmp_path / "some-model")
    own_code = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    rewrite(folder / "config.json", model_type="own", architectures=["Own"], auto_map=own_code)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "custom code" in one_line(lambda: load(folder))
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "ran").exists()


def test_loading_prints_nothing_and_keeps_the_level_of_transformers_log(
    folder: Path, capfd: pytest.CaptureFixture[str]
):
    before = logging.getLogger("transformers").level
    capfd.readouterr()
    load(folder)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("transformers").level == before


class TestHub:
    """A hub that does not answer is asked once and briefly, and what was downloaded before still loads."""

    @pytest.fixture
    def closed_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    @pytest.fixture
    def silent_port(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield int(server.getsockname()[1])

    def point_to(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        monkeypatch.setattr(hub, "model_info", HfApi(endpoint=f"http://127.0.0.1:{port}").model_info)

    def test_an_unreachable_hub_is_a_quick_error_of_one_line(self, monkeypatch: pytest.MonkeyPatch, closed_port: int):
        self.point_to(monkeypatch, closed_port)
        began = time.monotonic()
        message = one_line(lambda: load_model(ModelSource(model="no-such/model-anywhere")))
        assert "couldn't connect" in message
        assert time.monotonic() - began < 10

    def test_a_silent_hub_is_asked_once(self, monkeypatch: pytest.MonkeyPatch, silent_port: int):
        self.point_to(monkeypatch, silent_port)
        monkeypatch.setattr(hub, "TIMEOUT", 0.2)
        began = time.monotonic()
        one_line(lambda: load_model(ModelSource(model="no-such/model-anywhere")))
        assert time.monotonic() - began < 10

    def test_a_downloaded_model_loads_without_the_hub(
        self, tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
    ):
        self.point_to(monkeypatch, closed_port)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        repository = tmp_path / "models--someone--some-model"
        save(tiny, repository / "snapshots" / "0123abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abc")
        began = time.monotonic()
        loaded = load_model(ModelSource(model="someone/some-model", dtype="float32"))
        assert time.monotonic() - began < 10
        assert loaded.name == "some-model"
        torch.testing.assert_close(logits(loaded), logits(tiny))

    def test_the_error_of_the_hub_is_shown(self, monkeypatch: pytest.MonkeyPatch):
        class NotFound(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(404)

            def log_message(self, *args: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), NotFound) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            self.point_to(monkeypatch, server.server_port)
            assert hub_options("no-such/model-anywhere") == {}
            server.shutdown()
            thread.join()

    def test_an_invalid_hub_id_is_an_error_of_one_line(self):
        assert "Repo id must use alphanumeric chars" in one_line(lambda: load_model(ModelSource(model="a b")))
