"""Limits of prompts, completions and sequences have settings, and malformed bodies are refused at once."""

import gc
import json
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steering_server.api.settings import ApiSettings
from steering_server.limits import RequestLimits
from tests.builders import build_model, profiles_for
from tests.serving import serving

LIMITS = RequestLimits(
    max_body_size=2**20, max_prompt_tokens=60, max_completion_tokens=10, max_request_sequences=6, request_timeout=60
)
COMPLETION = {"prompt": "abc", "max_tokens": 2, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "a"}], "temperature": 0}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    model = build_model("llama", dtype=torch.float32)
    folder = tmp_path_factory.mktemp("limited")
    with (
        serving(model, folder, profiles_for(model), settings=ApiSettings(limits=LIMITS)) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        yield http


REFUSED = {
    "a long prompt": ({"prompt": "x" * 61}, "prompt", "61 tokens are too many; this server allows 60"),
    "a long prompt of tokens": ({"prompt": [1] * 61}, "prompt", "this server allows 60"),
    "one of several": ({"prompt": ["x", "x" * 70]}, "prompt", "70 tokens are too many"),
    "a long completion": ({"max_tokens": 11}, "max_tokens", "is 11; this server allows at most 10"),
    "many prompts": ({"prompt": ["x"] * 7}, "prompt", "7 prompts are too many; at most 6 sequences"),
    "many draws": ({"n": 7}, "n", "7 draws are too many; at most 6 sequences"),
    "many arms": (
        {"arms": ["baseline", "heads", "final"], "n": 3},
        "arms",
        "3 arms x 3 draws make 9 sequences; at most 6",
    ),
    "many of all": (
        {"prompt": ["x"] * 4, "arms": ["baseline", "heads"]},
        "prompt",
        "4 prompts x 2 arms make 8 sequences; at most 6",
    ),
}


@pytest.mark.parametrize(("fields", "param", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_beyond_a_limit_is_a_400_that_names_the_field_and_the_limit(
    limited: httpx.Client, fields: dict[str, object], param: str, says: str
):
    response = limited.post("/v1/completions", json=COMPLETION | fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert says in response.json()["error"]["message"]


def test_what_is_within_the_limits_is_answered(limited: httpx.Client):
    body = COMPLETION | {"prompt": ["x" * 60] * 3, "max_tokens": 10, "n": 2}
    assert len(limited.post("/v1/completions", json=body).json()["choices"]) == 6


def test_a_chat_without_a_limit_of_its_own_gets_the_servers(limited: httpx.Client):
    answer = limited.post("/v1/chat/completions", json=CHAT | {"ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] == 10


def test_a_body_beyond_its_limit_is_a_413(limited: httpx.Client):
    for content in (b" " * (2**20 + 1), iter([b" " * 2**16] * 17)):
        response = limited.post("/v1/completions", content=content)
        assert response.status_code == 413
        assert response.json()["error"]["message"] == "the body is larger than 1 MiB"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    [
        "prompt",
        "messages",
        "max_tokens",
        "n",
        "temperature",
        "arms",
        "steering",
        "stop",
        "logit_bias",
        "stream",
        "model",
        "input",
        "tools",
        "tool_choice",
        "text",
        "response_format",
        "stop_token_ids",
        "truncate_prompt_tokens",
        "chat_template_kwargs",
    ]
)
WRONG_FIELDS = st.dictionaries(FIELDS, JSON, min_size=1, max_size=4)
BODIES = st.one_of(
    st.binary(max_size=300),
    JSON.map(json.dumps).map(str.encode),
    WRONG_FIELDS.map(json.dumps).map(str.encode),
    WRONG_FIELDS.map(lambda fields: json.dumps(COMPLETION | fields)[:-1].encode()),
    st.sampled_from(b'[{"').flatmap(lambda one: st.integers(1, 5000).map(lambda times: bytes([one]) * times)),
    st.integers(1, 5000).map(lambda digits: b'{"prompt": "x", "n": ' + b"9" * digits + b"}"),
    st.integers(1, 2000).map(lambda depth: b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}"),
    st.text(max_size=50).map(lambda text: json.dumps({"prompt": "x", text: text}).encode()),
)
KINDS = st.sampled_from(
    ["application/json", "text/plain", "application/json; charset=utf-16", "", "multipart/form-data"]
)
PATHS = st.sampled_from(["/v1/completions", "/v1/chat/completions", "/v1/responses"])


@pytest.mark.parametrize(
    "bodies", [60, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])], ids=["some", "many"]
)
def test_malformed_bodies_are_refused_within_a_second_and_leave_nothing_behind(limited: httpx.Client, bodies: int):
    refused = 0

    @settings(max_examples=bodies, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(content=BODIES, kind=KINDS, path=PATHS)
    def refuse(content: bytes, kind: str, path: str) -> None:
        nonlocal refused
        began = time.process_time()  # of the server's thread too, whatever else the machine does
        response = limited.post(path, content=content, headers={"content-type": kind})
        assert time.process_time() - began < 1
        assert response.status_code < 500, content
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
            refused += 1

    refuse()
    gc.collect()
    before = psutil.Process().memory_info().rss
    refuse()
    gc.collect()
    assert refused > 1.8 * bodies
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
