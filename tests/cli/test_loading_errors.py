"""A model that cannot be loaded ends a command in one line that says what to do, and exit status 1."""

import json
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from steering_server.cli import main
from steering_server.logs import configure_logs
from tests.builders import build_model, build_tokenizer
from tests.cli.subprocesses import steer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 400\n"
ALL_BUT_NOTHING = '{"model.layers.1": "disk"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loaded = build_model("llama", dtype=torch.float32)
    loaded.model.save_pretrained(tmp_path / "model", max_shard_size="20KB")  # in several pieces
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def pieces(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def remove_weights(folder: Path) -> None:
    for file in [*pieces(folder), folder / "model.safetensors.index.json"]:
        file.unlink()


def remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def cut_off(folder: Path) -> None:
    pieces(folder)[1].write_bytes(pieces(folder)[1].read_bytes()[:-100])


def add_a_token(folder: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)


def make_huge(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    huge = {"hidden_size": 2**18, "intermediate_size": 2**20, "num_hidden_layers": 99}  # petabytes
    (folder / "config.json").write_text(json.dumps(config | huge))


def make_unknown(folder: Path) -> None:
    shutil.rmtree(folder)
    BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=8, n_layer=1, n_head=2)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def pickle_behind_a_sealed_cache(folder: Path) -> None:
    """Weights that have to be converted for disk offload, with a file in place of the cache folder."""
    remove_weights(folder)
    torch.save(build_model("llama", dtype=torch.float32).model.state_dict(), folder / "pytorch_model.bin")
    (folder.parent / "cache").write_text("no folder")


CASES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "no folder": (shutil.rmtree, [], "model' does not exist"),
    "no config": (lambda folder: (folder / "config.json").unlink(), [], "has no config.json"),
    "no weights": (remove_weights, [], "has no weights: download model.safetensors"),
    "no tokenizer": (
        remove_tokenizer,
        [],
        "its tokenizer cannot be read: .* needs the tokenizer's files, such as tokenizer.json",
    ),
    "a piece missing": (lambda folder: pieces(folder)[1].unlink(), [], "model-00002-of-.*.safetensors is missing: "),
    "a piece cut off": (cut_off, [], "model-00002-of-.*.safetensors is damaged or incomplete: download it again"),
    "a pointer": (lambda folder: pieces(folder)[1].write_bytes(POINTER), [], "model-00002.* with `git lfs pull`"),
    "a tokenizer that does not fit": (
        add_a_token,
        [],
        "such as '<new>' with id 260; the largest id is 259; use the",
    ),
    "an adapter beside it": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        [],
        "there is an adapter beside its weights .*: merge it into the weights .*, or remove adapter_config.json",
    ),
    "another architecture": (make_unknown, [], "BloomForCausalLM is not known to steering-server; known: Falcon"),
    "too large": (
        make_huge,
        [],
        "not enough memory on .*: .* GiB are free; use a smaller dtype, or the device map auto",
    ),
    "no such device": (lambda _: None, ["--device-map", "cuda:99"], "'cuda:99' does not exist; this machine has cpu, "),
    "no such devices": (lambda _: None, ["--device-map", '{"": 99}'], "99 does not exist; this machine has cpu, "),
    "no such part": (
        lambda _: None,
        ["--device-map", '{"": "cpu", "h.1": "disk"}'],
        "names 'h.1', .* examples of its parts: ",
    ),
    "a part left out": (lambda _: None, ["--device-map", ALL_BUT_NOTHING], "has no device for model.embed_tokens; an"),
    "a limit alone": (
        lambda _: None,
        ["--max-memory", "cpu=1GiB"],
        "max_memory needs an automatic device map, such as auto",
    ),
    "a limit that is none": (
        lambda _: None,
        ["--device-map", "auto", "--max-memory", "cpu=lots"],
        "max_memory of cpu is 'lots'; allowed: a size such as 20GiB",
    ),
    "nowhere to write": (
        pickle_behind_a_sealed_cache,
        ["--device-map", "disk"],
        "on disk .*, and the cache folder .*cache' cannot be written: .*; choose another cache folder",
    ),
}


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Restore the handlers of signals and logs, which a server sets for its own process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    configure_logs("error")


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("command", [["fit", "parentheses", "--out", "never-written"], ["serve", "--port", "0"]])
@pytest.mark.parametrize("case", CASES)
def test_the_error_is_one_line_that_says_what_to_do(
    case: str,
    command: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    damage, options, says = CASES[case]
    damage(folder)
    capfd.readouterr()
    cache = ["--cache-dir", str(folder.parent / "cache")]
    monkeypatch.setattr(sys, "argv", ["steer", *command, "--model", str(folder), *cache, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    written = capfd.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert re.search(says, written.err), written.err


class Hub(BaseHTTPRequestHandler):
    """A hub with the models of a module's tests; it answers that others are gated or do not exist."""

    folders: ClassVar[dict[str, Path]] = {}
    """Model name -> folder."""

    def do_GET(self) -> None:
        model, name = next((model for model in self.folders if model in self.path), None), Path(self.path).name
        if model is None:
            fault = "GatedRepo" if "gated" in self.path else "RepoNotFound"
            self.answer(401, {"X-Error-Code": fault, "X-Error-Message": fault})
        elif "/api/" in self.path:
            self.answer(200, {}, json.dumps({"id": model, "sha": "0" * 40}).encode())
        elif (file := self.folders[model] / name).is_file():
            self.answer(200, {"X-Repo-Commit": "0" * 40, "ETag": f'"{name}"'}, file.read_bytes())
        else:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "0" * 40})

    do_HEAD = do_GET

    def answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run the hub; yield the variables that a command finds it by."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path_factory.mktemp("downloads")),
        }
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("model", "lacks", "says"),
    [
        ("someone/both", "", "there is an adapter beside its weights (adapter_config.json)"),
        ("someone/adapter", "config.json", "it is a LoRA adapter of model someone/the-base, not a model: load that"),
        ("someone/plain", "adapter_config.json", None),
    ],
    ids=["beside the weights", "alone", "none"],
)
def test_an_adapter_on_the_hub_is_recognised_without_a_download(
    hub: dict[str, str], model: str, lacks: str, says: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "someone/the-base"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    if lacks:
        (folder / lacks).unlink()
    monkeypatch.setitem(Hub.folders, model, folder)
    ended = steer("anatomy", model, preset=hub)
    assert ended.returncode == (says is not None), ended.stderr
    assert (says or "") in ended.stderr


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("someone/gated", "it is gated: request access at https://huggingface.co/someone/gated, then log in with `hf"),
        (
            "someone/nothing",
            "no model of this name on the hub that you can access: check the name, or log in",
        ),
    ],
)
def test_a_refusal_of_the_hub_is_an_error_of_one_line_that_says_what_to_do(hub: dict[str, str], model: str, says: str):
    ended = steer("fit", "parentheses", "--out", "never-written", "--model", model, preset=hub)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1
