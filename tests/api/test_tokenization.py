"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info`` in vLLM's format, ``/version`` and single models."""

from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.utils import RemoteTokenizer, check_remote_tokenizer_support

from steering_profiles import __version__
from steering_profiles.models import LoadedModel
from tests.builders import build_model
from tests.serving import serving

NAME = "tiny-llama"
HELLO = [{"role": "user", "content": "hello"}]


def test_a_prompt_becomes_the_tokens_that_a_completion_computes(http, model: LoadedModel):
    answer = http.post("/tokenize", json={"model": NAME, "prompt": "print(str("}).json()
    usage = http.post("/v1/completions", json={"prompt": "print(str(", "max_tokens": 1}).json()["usage"]
    assert answer["tokens"] == model.tokenizer.encode("print(str(")
    assert answer["count"] == len(answer["tokens"]) == usage["prompt_tokens"]
    assert answer["max_model_len"] == 512
    assert answer["token_strs"] is None


def test_messages_become_the_tokens_that_a_chat_computes(http):
    answer = http.post("/tokenize", json={"messages": HELLO, "return_token_strs": True}).json()
    assert "".join(answer["token_strs"]).replace("Ċ", "\n") == "<|user|>hello\n<|assistant|>"
    chat = http.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 1}).json()
    assert answer["count"] == chat["usage"]["prompt_tokens"]
    shorter = http.post("/tokenize", json={"messages": HELLO, "add_generation_prompt": False}).json()
    assert shorter["tokens"] == answer["tokens"][: shorter["count"]]
    assert shorter["count"] < answer["count"]


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=40))
def test_tokens_become_the_text_that_they_came_from(http, text):
    tokens = http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": text}


def test_the_tokens_that_a_tokenizer_adds_can_be_left_out(tmp_path: Path):
    loaded = build_model("llama")
    from tokenizers.processors import TemplateProcessing

    end = loaded.tokenizer.eos_token
    loaded.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, loaded.tokenizer.eos_token_id)]
    )
    with serving(loaded, tmp_path) as url:
        ask = {
            (field, add): httpx.post(f"{url}/tokenize", json={field: text, "add_special_tokens": add}).json()["tokens"]
            for field, text in (("prompt", "hello"), ("messages", HELLO))
            for add in (None, True, False)
        }
    for field, default in (("prompt", True), ("messages", False)):
        assert ask[field, True] == [loaded.tokenizer.eos_token_id, *ask[field, False]]
        assert ask[field, None] == ask[field, default]


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": HELLO}, "messages"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "x", "colour": 1}, "colour"),
        ("/tokenize", {"prompt": "x", "model": "other"}, "model"),
        ("/tokenize", {"messages": HELLO, "continue_final_message": True, "add_generation_prompt": True},
         "continue_final_message"),
        ("/tokenize", {"messages": HELLO, "chat_template": "{{ 1 }}"}, "chat_template"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [999]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(http, route, body, param):
    answer = http.post(route, json=body)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


def test_the_tokenizer_describes_itself(http, model: LoadedModel):
    info = http.get("/tokenizer_info").json()
    assert info["tokenizer_class"] == type(model.tokenizer).__name__
    assert info["eos_token"] == model.tokenizer.eos_token
    assert info["chat_template"] == model.tokenizer.chat_template
    assert info["model_max_length"] == 512


def test_the_remote_tokenizer_of_lm_eval_works(url, model: LoadedModel):
    base = f"{url}/v1/completions"
    assert check_remote_tokenizer_support(base)
    remote = RemoteTokenizer(base)
    assert remote.encode("print(1") == model.tokenizer.encode("print(1", add_special_tokens=False)
    assert remote.decode(remote.encode("print(1")) == "print(1"
    assert remote.eos_token_id == model.tokenizer.eos_token_id
    assert remote.apply_chat_template(HELLO) == "<|user|>hello\n<|assistant|>"


def test_the_version_is_that_of_the_package(http):
    assert http.get("/version").json() == {"version": __version__}


@pytest.mark.parametrize("name", [NAME, f"{NAME}+heads", f"{NAME}+final"])
@pytest.mark.parametrize("written", [str, quote, lambda name: quote(name, safe="")], ids=["as is", "quoted", "all"])
def test_a_single_model_is_found_however_its_name_is_written(http, name, written):
    assert http.get(f"/v1/models/{written(name)}").json()["id"] == name


def test_a_name_with_slashes_is_found(tmp_path: Path):
    loaded = build_model("llama")
    with serving(loaded, tmp_path, served_name="org/model") as url:
        for written in ("org/model", "org%2Fmodel"):
            assert httpx.get(f"{url}/v1/models/{written}").json()["id"] == "org/model"
