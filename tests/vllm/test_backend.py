"""`steer serve --engine vllm`: this project's API, on vLLM, answers as on its own engine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from steering_profiles.models import LoadedModel
from steering_profiles.store import save_profile
from tests.builders import build_profile
from tests.serving import free_port, serving, wait_until_ready
from tests.vllm.conftest import FINAL
from tests.vllm.offline import ROOT, TIE, end, environment
from tests.vllm.prompts import FOUR

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def where(embedded32: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a profile that has a condition, and one of the final layer."""
    folder = tmp_path_factory.mktemp("where")
    heads = [(5, 1, 0.3), (7, 0, 0.2), (11, 2, 2.0)]
    save_profile(build_profile(embedded32, "where", heads=heads, when={"ends_with": ["))", "\n"]}), folder)
    save_profile(build_profile(embedded32, "final", **FINAL), folder)
    return folder


@pytest.fixture(scope="module")
def on_vllm(where: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, log = free_port(), tmp_path_factory.mktemp("steer") / "log"
    arguments = {"enforce_eager": True, "block_size": 32}
    command = [sys.executable, "-c", "from steering_server.cli import main; main()", "serve", "--engine", "vllm"]
    options = ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "16", "--port", str(port)]
    options += ["--profiles", str(where)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *options, "--vllm-args", json.dumps(arguments), "--served-name", "base"],
            stdout=output,
            stderr=output,
            text=True,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process, seconds=600)
        yield url
    finally:
        print(log.read_text()[-3000:])
        end(process)


@pytest.fixture(scope="module")
def on_our_own(embedded32: LoadedModel, where: Path) -> Iterator[str]:
    with serving(embedded32, where, shipped=True, served_name="base") as url:
        yield url


def choices(url: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "base", "prompt": FOUR, "max_tokens": 6, "temperature": 0, **fields}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["choices"]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"arms": ["baseline", "parentheses", "final+parentheses@0.5"], "logprobs": 3},
        {"model": "base+parentheses", "stop": ["\n"]},
        {"echo": True, "logprobs": 1, "max_tokens": 0, "arms": ["baseline", "parentheses"]},
        {"max_tokens": 3, "presence_penalty": 1.5, "logit_bias": {"28": -5}, "steering": {"profile": "parentheses"}},
        {"min_tokens": 4, "stop": ["\n"], "max_tokens": 8},
        {"steering": {"profile": "parentheses", "except": ["L11H2", "L26H6"]}, "logprobs": 3},
        {"stop_token_ids": [198, 23], "max_tokens": 8, "arms": ["baseline", "parentheses"]},
        {"arms": ["baseline", "where", "parentheses+where@0.5"], "max_tokens": 12, "logprobs": 3},
    ],
)
def test_answers_are_those_of_our_own_engine(on_vllm: str, on_our_own: str, fields: dict[str, Any]) -> None:
    for ours, theirs in zip(choices(on_our_own, **fields), choices(on_vllm, **fields), strict=True):
        assert (theirs["text"], theirs["finish_reason"]) == (ours["text"], ours["finish_reason"])
        assert theirs.get("arm") == ours.get("arm")
        if "logprobs" in fields:
            expected, found = (one["logprobs"]["token_logprobs"] for one in (ours, theirs))
            assert found[0] == expected[0] or found[0] == pytest.approx(expected[0], abs=TIE)
            assert found[1:] == pytest.approx(expected[1:], abs=TIE)
            assert theirs["logprobs"]["tokens"] == ours["logprobs"]["tokens"]


def test_profiles_are_described_as_by_our_own_engine(on_vllm: str, on_our_own: str) -> None:
    theirs, ours = (httpx.get(f"{url}/v1/profiles/where").json() for url in (on_vllm, on_our_own))
    assert (theirs["usable"], theirs["when"]) == (ours["usable"], ours["when"])
    assert theirs["usable"]


def test_what_was_applied_has_the_condition(on_vllm: str, on_our_own: str) -> None:
    body = {"model": "base+where", "prompt": FOUR, "max_tokens": 1, "temperature": 0}
    theirs, ours = (httpx.post(f"{url}/v1/completions", json=body, timeout=300).json() for url in (on_vllm, on_our_own))
    assert theirs["steering"] == ours["steering"]
    assert "ends with" in json.dumps(theirs["steering"])


def test_four_parentheses_are_closed_by_the_steered_arm(on_vllm: str) -> None:
    texts = [one["text"] for one in choices(on_vllm, arms=["baseline", "parentheses"], max_tokens=1)]
    assert texts == [")))", "))))"]


def test_a_stream_brings_what_an_answer_has(on_vllm: str) -> None:
    body = {"model": "base+parentheses", "prompt": FOUR, "max_tokens": 6, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{on_vllm}/v1/completions", json=body, timeout=300) as events:
        lines = [line.removeprefix("data: ") for line in events.iter_lines() if line.startswith("data: {")]
    streamed = "".join(choice["text"] for line in lines for choice in json.loads(line)["choices"])
    assert streamed == choices(on_vllm, model="base+parentheses")[0]["text"]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA}}},
        {"guided_regex": "[a-f]{3}-[0-9]+!"},
        {"guided_choice": ["))) yes", "no"], "arms": ["baseline", "parentheses"]},
        {"structured_outputs": {"grammar": 'start: "x" digit+ \ndigit: /[0-3]/'}, "max_tokens": 9},
    ],
)
def test_grammars_are_followed_as_by_our_own_engine(on_vllm: str, on_our_own: str, fields: dict[str, Any]) -> None:
    asked = {"max_tokens": 40, **fields}
    found = [(one["text"], one["finish_reason"]) for one in choices(on_vllm, **asked)]
    assert found == [(one["text"], one["finish_reason"]) for one in choices(on_our_own, **asked)]


def test_a_tool_that_must_be_called_is_called(on_vllm: str) -> None:
    function = {
        "name": "add",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    }
    body = {
        "messages": [{"role": "user", "content": "Add 3."}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 60,
        "temperature": 0,
    }
    answer = httpx.post(f"{on_vllm}/v1/chat/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "add"
    assert isinstance(json.loads(call["function"]["arguments"])["a"], int)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"guided_regex": "a+", "ignore_eos": True}, "ignore_eos"), ({"guided_regex": "("}, "guided_regex")],
)
def test_what_vllm_cannot_do_is_refused_by_name(on_vllm: str, fields: dict[str, Any], param: str) -> None:
    refused = httpx.post(f"{on_vllm}/v1/completions", json={"prompt": FOUR, **fields}, timeout=60)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text


def test_the_engine_is_measured(on_vllm: str) -> None:
    choices(on_vllm)
    metrics = httpx.get(f"{on_vllm}/metrics").text
    assert "vllm:num_requests_running" in metrics
