"""Fields of vLLM's that the server implements: stop tokens, truncation, token ids, variables of chat templates."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from tests.builders import CHAT_TEMPLATE, build_model, profiles_for
from tests.serving import serving

COMPLETION = {"prompt": "print(1", "max_tokens": 8, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "temperature": 0}
BODIES = {"/v1/completions": COMPLETION, "/v1/chat/completions": CHAT}
THINKS = CHAT_TEMPLATE + "{% if enable_thinking %}<think>{% endif %}"


def ask(http: httpx.Client, path: str = "/v1/completions", **fields: Any) -> Any:
    answer = http.post(path, json=BODIES[path] | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(http: httpx.Client, path: str = "/v1/completions", **fields: Any) -> tuple[str, str]:
    answer = http.post(path, json=BODIES[path] | fields)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]["param"], answer.json()["error"]["message"]


def events(http: httpx.Client, path: str, **fields: Any) -> list[Any]:
    text = http.post(path, json=BODIES[path] | fields | {"stream": True}).text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def text_of(choice: Any) -> str:
    return choice["text"] if "text" in choice else choice["message"]["content"]


class TestStopTokens:
    """``stop_token_ids``."""

    @pytest.mark.parametrize("path", BODIES)
    def test_a_stop_token_ends_the_text_and_adds_nothing_to_it(self, http, path):
        (free,) = ask(http, path, ignore_eos=True, return_token_ids=True)["choices"]
        stop = free["token_ids"][4]
        first = free["token_ids"].index(stop)
        (choice,) = ask(http, path, ignore_eos=True, return_token_ids=True, stop_token_ids=[stop])["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["token_ids"] == free["token_ids"][: first + 1]
        assert text_of(free).startswith(text_of(choice))
        (shorter,) = ask(http, path, ignore_eos=True, max_tokens=first + 1)["choices"]
        assert len(text_of(choice)) < len(text_of(shorter))

    def test_it_does_so_after_min_tokens_only_and_also_where_end_tokens_do_not(self, http):
        (free,) = ask(http, ignore_eos=True, return_token_ids=True)["choices"]
        stop = free["token_ids"][2]
        for ignores in (True, False):
            fields = {"stop_token_ids": [stop], "ignore_eos": ignores, "return_token_ids": True}
            (late,) = ask(http, **fields, min_tokens=6)["choices"]
            assert stop not in late["token_ids"][:6]
        (ended,) = ask(http, stop_token_ids=[stop], ignore_eos=True, return_token_ids=True)["choices"]
        assert ended["token_ids"][-1] == stop

    def test_arms_beside_each_other_stop_each_by_itself(self, http):
        arms = {"arms": ["baseline", "heads"], "return_token_ids": True, "ignore_eos": True}
        free = ask(http, **arms)["choices"]
        stop = free[0]["token_ids"][3]
        stopped = ask(http, **arms, stop_token_ids=[stop])["choices"]
        assert stopped[0]["finish_reason"] == "stop"
        assert (stop in free[1]["token_ids"]) == (stopped[1]["finish_reason"] == "stop")

    @pytest.mark.parametrize("ids", [[10**6], [-1], ["x"], [1] * 1025, 5])
    def test_what_are_no_tokens_is_refused(self, http, ids):
        param, _ = refused(http, stop_token_ids=ids)
        assert param.split(".")[0] == "stop_token_ids"

    def test_a_stream_says_the_same(self, http):
        (free,) = ask(http, ignore_eos=True, return_token_ids=True)["choices"]
        stop = free["token_ids"][4]
        (whole,) = ask(http, ignore_eos=True, stop_token_ids=[stop])["choices"]
        chunks = [
            event["choices"][0] for event in events(http, "/v1/completions", ignore_eos=True, stop_token_ids=[stop])
        ]
        assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
        assert chunks[-1]["finish_reason"] == "stop"


class TestTruncation:
    """``truncate_prompt_tokens`` and ``truncation_side``."""

    def test_the_end_of_a_prompt_is_kept_or_its_beginning(self, http):
        kept = ask(http, truncate_prompt_tokens=3)
        assert kept["choices"] == ask(http, prompt="t(1")["choices"]
        assert kept["usage"]["prompt_tokens"] == 3
        assert (
            ask(http, truncate_prompt_tokens=3, truncation_side="right")["choices"]
            == ask(http, prompt="pri")["choices"]
        )

    def test_a_prompt_that_is_short_enough_stays_as_it_is(self, http):
        assert ask(http, truncate_prompt_tokens=100)["choices"] == ask(http)["choices"]

    def test_as_many_tokens_are_kept_as_fit_the_context(self, http):
        long = "x" * 2000
        assert ask(http, prompt=long, truncate_prompt_tokens=-1)["usage"]["prompt_tokens"] == 512 - 8
        assert ask(http, prompt=[list(range(40)) * 20], truncate_prompt_tokens=-1)["usage"]["prompt_tokens"] == 512 - 8
        messages = [{"role": "user", "content": long}]
        answer = ask(http, "/v1/chat/completions", messages=messages, truncate_prompt_tokens=-1)
        assert answer["usage"]["prompt_tokens"] == 512 - 8
        assert "context" in refused(http, prompt=long)[1]

    def test_every_prompt_is_truncated_by_itself(self, http):
        both = ask(http, prompt=["abcdef", "xy"], truncate_prompt_tokens=3)
        assert both["usage"]["prompt_tokens"] == 5

    @pytest.mark.parametrize("value", [0, -2, "3", 1.5])
    def test_other_numbers_are_refused(self, http, value):
        assert refused(http, truncate_prompt_tokens=value)[0] == "truncate_prompt_tokens"


class TestTokenIds:
    """``return_token_ids``."""

    def test_completions_have_those_of_prompts_and_of_texts(self, http):
        answer = ask(http, prompt=["ab", "cde"], return_token_ids=True)
        decoded = [
            http.post("/detokenize", json={"tokens": choice["prompt_token_ids"]}).json()["prompt"]
            for choice in answer["choices"]
        ]
        assert decoded == ["ab", "cde"]
        assert sum(len(choice["token_ids"]) for choice in answer["choices"]) == answer["usage"]["completion_tokens"]

    def test_a_chat_has_those_of_its_prompt_once(self, http):
        answer = ask(http, "/v1/chat/completions", n=2, return_token_ids=True)
        assert len(answer["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]
        assert all("prompt_token_ids" not in choice for choice in answer["choices"])

    @pytest.mark.parametrize("path", BODIES)
    def test_the_chunks_of_a_stream_add_up_to_them(self, http, path):
        whole = ask(http, path, return_token_ids=True)
        streamed = events(http, path, return_token_ids=True)
        ids = [token for event in streamed for token in event["choices"][0].get("token_ids", [])]
        assert ids == whole["choices"][0]["token_ids"]
        holders = [event | event["choices"][0] for event in streamed]
        prompts = [holder["prompt_token_ids"] for holder in holders if "prompt_token_ids" in holder]
        assert prompts == [(whole | whole["choices"][0])["prompt_token_ids"]]
        assert "prompt_token_ids" in holders[0]

    @pytest.mark.parametrize("path", BODIES)
    def test_nobody_else_gets_them(self, http, path):
        assert "token_ids" not in json.dumps(ask(http, path))
        assert "token_ids" not in json.dumps(events(http, path))


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A model whose chat template has a variable."""
    model = build_model("llama", dtype=torch.float32)
    model.tokenizer.chat_template = THINKS
    folder = tmp_path_factory.mktemp("thinking")
    with serving(model, folder, profiles_for(model)) as url, httpx.Client(base_url=url, timeout=60) as http:
        yield http


class TestTemplateVariables:
    """``chat_template_kwargs``."""

    def tokens(self, http: httpx.Client, **variables: Any) -> int:
        answer = ask(http, "/v1/chat/completions", chat_template_kwargs=variables)
        return answer["usage"]["prompt_tokens"]

    def test_the_template_reads_them(self, thinking):
        plain = self.tokens(thinking)
        assert self.tokens(thinking, enable_thinking=True) == plain + len("<think>")
        assert self.tokens(thinking, enable_thinking=False) == plain
        body = {"messages": CHAT["messages"], "chat_template_kwargs": {"enable_thinking": True}}
        assert thinking.post("/tokenize", json=body).json()["count"] == plain + len("<think>")

    def test_those_that_it_does_not_read_are_named(self, thinking):
        answer = thinking.post("/v1/chat/completions", json=CHAT | {"chat_template_kwargs": {"mood": 1, "a\nb": 2}})
        assert answer.status_code == 200, answer.text
        named = "chat_template_kwargs.mood, 'chat_template_kwargs.a\\nb'"
        assert answer.headers["x-steering-ignored"] == named

    @pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "tokenize", "chat_template"])
    def test_what_the_server_sets_is_refused(self, thinking, name):
        param, message = refused(thinking, "/v1/chat/completions", chat_template_kwargs={name: []})
        assert param == "chat_template_kwargs"
        assert name in message

    @pytest.mark.parametrize("value", [[], "x", 5, {"enable_thinking": "\ud800"}])
    def test_what_is_no_object_is_refused(self, thinking, value):
        body = json.dumps(CHAT | {"chat_template_kwargs": value})
        answer = thinking.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == (200 if isinstance(value, dict) else 400)


def test_the_tokens_that_a_tokenizer_puts_before_a_text_can_be_left_out(http):
    assert ask(http, add_special_tokens=False)["choices"] == ask(http)["choices"]  # this one puts none
    assert refused(http, add_special_tokens="no")[0] == "add_special_tokens"


def test_the_tools_of_a_conversation_are_tokenized_too(http):
    tools = [{"type": "function", "function": {"name": "ping"}}]
    with_tools = http.post("/tokenize", json={"messages": CHAT["messages"], "tools": tools}).json()
    without = http.post("/tokenize", json={"messages": CHAT["messages"]}).json()
    assert with_tools["count"] > without["count"] + len("ping")
