"""The calls of Open WebUI, as its server and, for a direct connection, its page send them."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from steering_server.api.settings import ApiSettings
from tests.builders import build_model, profiles_for
from tests.serving import serving

PAGE = "http://localhost:3000"
MODEL = "tiny-llama"
HEADERS = {
    "content-type": "application/json",
    "user-agent": "Python/3.11 aiohttp/3.13.2",
    "accept": "*/*",
    "accept-encoding": "gzip, deflate, br",
    "x-openwebui-user-name": "Zo%C3%AB K",
    "x-openwebui-user-id": "4bdbbc0a-8d4d-4b0e-a3ad-5f1d2d1c8f2a",
    "x-openwebui-user-email": "zoe@example.org",
    "x-openwebui-user-role": "admin",
    "x-openwebui-chat-id": "0c6cb9b2-3c2d-4d0b-9c0e-0a1b2c3d4e5f",
    "cookie": "token=abc; theme=dark",
}
"""Headers of its server; those about the user come where it is told to send them."""

TITLE_PROMPT = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Output:
JSON format: { "title": "your concise title here" }
### Examples:
- { "title": "📉 Stock Market Trends" },
- { "title": "🍪 Perfect Chocolate Chip Recipe" }
### Chat History:
<chat_history>
USER: What is 2 + 2?
ASSISTANT: 4
</chat_history>"""
TAGS_PROMPT = TITLE_PROMPT.replace("title", "tags")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{number}",
            "description": "",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": ""},
                    "count": {"type": "integer", "default": 5},
                },
                "required": ["query"],
            },
        },
    }
    for number in range(8)
]
ANSWERED = [
    {"role": "system", "content": "User Context:\n\n"},
    {"role": "user", "content": [{"type": "text", "text": "Which notes do I have?"}]},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "tool_1", "arguments": '{"query": "x"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '[{"title": "A note"}]'},
]


@pytest.fixture(scope="module")
def webui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    model = build_model("llama", dtype=torch.float32, context=16384)
    settings = ApiSettings(cors_origins=(PAGE,))
    with (
        serving(model, tmp_path_factory.mktemp("webui"), profiles_for(model), settings=settings) as url,
        httpx.Client(base_url=f"{url}/v1", headers=HEADERS, timeout=60) as client,
    ):
        yield client


def streamed(client: httpx.Client, **fields: Any) -> list[Any]:
    """The events of a streamed chat, read line by line as Open WebUI does."""
    body = {"stream": True, "model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    body |= {"stream_options": {"include_usage": True}, "max_tokens": 6}
    with client.stream("POST", "/chat/completions", json=body | fields) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line.strip()]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_it_finds_the_models_and_what_it_needs_of_each(webui: httpx.Client):
    for headers in ({}, {"authorization": "Bearer none"}, {"authorization": "Bearer sk-anything"}):
        models = webui.get("/models", headers=headers).json()
        assert models["object"] == "list"
        assert [model["id"] for model in models["data"]] == [MODEL, f"{MODEL}+final", f"{MODEL}+heads"]
        assert all(model["owned_by"] for model in models["data"])


def test_a_chat_streams_and_ends_with_the_usage(webui: httpx.Client):
    *chunks, last = streamed(webui)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert (last["choices"], last["usage"]["completion_tokens"] > 0) == ([], True)


def test_a_steered_model_of_the_list_can_be_chosen(webui: httpx.Client):
    texts = [
        "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed(webui, **fields)[:-1])
        for fields in ({"temperature": 0}, {"temperature": 0, "model": f"{MODEL}+heads"})
    ]
    assert texts[0] != texts[1]


def test_all_parameters_of_its_page_are_accepted(webui: httpx.Client):
    parameters = {
        "temperature": 0.8,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 42,
        "stop": ["\n\n", "User:"],
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "repetition_penalty": 1.1,
        "repeat_penalty": 1.0,
        "logit_bias": {"40": -100},
        "reasoning_effort": None,
        "max_tokens": 4,
        "user": "zoe@example.org",
        "metadata": {"chat_id": "0c6c", "message_id": "1", "user_id": "4bdb"},
    }
    assert streamed(webui, **parameters)


def test_the_tools_that_it_attaches_to_every_chat_are_accepted(webui: httpx.Client):
    *chunks, _ = streamed(webui, tools=TOOLS)
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")


def test_calls_and_results_are_sent_back(webui: httpx.Client):
    assert streamed(webui, tools=TOOLS[:2], messages=ANSWERED)


@pytest.mark.parametrize("prompt", [TITLE_PROMPT, TAGS_PROMPT], ids=["title", "tags"])
@pytest.mark.parametrize("limit", [{"max_completion_tokens": 20}, {"max_tokens": 20}, {}], ids=["new", "old", "none"])
def test_titles_and_tags_of_chats_are_generated(webui: httpx.Client, prompt: str, limit: dict[str, int]):
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": False, **limit}
    if not limit:
        body |= {"stop": [*"aeiou \n"]}  # without a limit the small model writes on until its context is full
    answer = webui.post("/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert isinstance(answer.json()["choices"][0]["message"]["content"], str)


def test_what_the_server_does_not_have_is_an_error_in_openais_format(webui: httpx.Client):
    for path in ("/embeddings", "/audio/speech", "/images/generations"):
        answer = webui.post(path, json={"model": MODEL, "input": "x"})
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]


def test_its_page_may_ask_directly(webui: httpx.Client):
    preflight = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
        "access-control-request-private-network": "true",
        "sec-fetch-mode": "cors",
    }
    for path in ("/chat/completions", "/models"):
        allowed = webui.options(path, headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "authorization" in allowed.headers["access-control-allow-headers"]
    for answer in (
        webui.get("/models", headers={"origin": PAGE}),
        webui.post("/chat/completions", headers={"origin": PAGE}, json={"messages": "wrong"}),
    ):
        assert answer.headers["access-control-allow-origin"] == PAGE
