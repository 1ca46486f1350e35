"""Functions in ``POST /v1/responses``, through the official ``openai`` package."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
import torch
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel, Field

from tests.api.functions import ARGUMENTS, CLOCK_ARGUMENTS, WEATHER_ARGUMENTS
from tests.builders import build_model, profiles_for
from tests.serving import serving

NAME = "tiny-llama"


def function(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": f"The {name}.", "parameters": parameters, **more}


TOOLS = [function("weather", WEATHER_ARGUMENTS, strict=True), function("clock", CLOCK_ARGUMENTS), function("ping")]
CLOCK = {"type": "function", "name": "clock"}
ASK = {"model": NAME, "input": "What is the weather?", "max_output_tokens": 300, "tools": TOOLS}
SEED = {"seed": 4}


class Weather(BaseModel):
    """Ask for the weather."""

    city: str = Field(max_length=5)
    celsius: bool


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = build_model("llama", dtype=torch.float32, context=16384)
    with serving(model, tmp_path_factory.mktemp("profiles"), profiles_for(model)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def respond(client: openai.OpenAI, **fields: Any) -> Any:
    return client.responses.create(**ASK | {"extra_body": SEED} | fields)


def calls_of(answer: Any) -> list[ResponseFunctionToolCall]:
    """Return the calls of an answer that has nothing else, checked."""
    for item in answer.output:
        assert isinstance(item, ResponseFunctionToolCall)
        assert item.id.startswith("fc_")
        assert item.call_id.startswith("call_")
        jsonschema_rs.validate(ARGUMENTS[item.name], json.loads(item.arguments))
    return answer.output


def test_a_required_call_has_valid_arguments(client):
    answer = respond(client, tool_choice="required", parallel_tool_calls=False)
    (call,) = calls_of(answer)
    assert (answer.status, call.status) == ("completed", "completed")
    assert answer.output_text == ""
    assert (answer.tool_choice, answer.parallel_tool_calls) == ("required", False)
    assert [tool.name for tool in answer.tools] == ["weather", "clock", "ping"]


def test_a_named_function_is_called_once(client):
    (call,) = calls_of(respond(client, tool_choice=CLOCK))
    assert call.name == "clock"


def test_allowed_functions_are_the_only_ones_that_are_called(client):
    choice = {"type": "allowed_tools", "mode": "required", "tools": [CLOCK]}
    assert {call.name for call in calls_of(respond(client, tool_choice=choice, parallel_tool_calls=False))} == {"clock"}


def test_the_model_may_answer_with_text(client):
    answer = respond(client, max_output_tokens=20)
    (message,) = answer.output
    assert message.type == "message"
    assert answer.output_text
    assert message.status == answer.status


def test_functions_that_may_not_be_called_change_nothing(client):
    plain = respond(client, tools=[], max_output_tokens=12)
    assert respond(client, tool_choice="none", max_output_tokens=12).output_text == plain.output_text


def test_the_calls_are_those_of_a_chat(client):
    tools = [{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}} for tool in TOOLS]
    chat = client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": ASK["input"]}],
        max_tokens=300,
        tools=tools,
        tool_choice="required",
        seed=4,
    )
    calls = [(call.function.name, call.function.arguments) for call in chat.choices[0].message.tool_calls]
    assert [(item.name, item.arguments) for item in respond(client, tool_choice="required").output] == calls


def test_an_answer_is_a_call_or_of_the_given_form(client):
    kinds = set()
    for seed in range(8):
        answer = respond(client, text={"format": {"type": "json_object"}}, extra_body={"seed": seed})
        kinds.add(answer.output[0].type)
        if answer.status == "completed" and answer.output[0].type == "message":
            assert isinstance(json.loads(answer.output_text), dict)
    assert "message" in kinds


def test_the_events_of_a_call_are_those_of_openai_in_their_order(client):
    fields = {"tool_choice": "required", "parallel_tool_calls": False}
    events = list(respond(client, stream=True, **fields))
    whole = respond(client, **fields)
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        *["response.function_call_arguments.delta"] * len(deltas),
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    added, done, item, ended = events[2], events[-3], events[-2].item, events[-1].response
    assert (added.item.status, added.item.arguments, added.item.name) == ("in_progress", "", item.name)
    assert "".join(event.delta for event in deltas) == done.arguments == item.arguments == whole.output[0].arguments
    assert {event.item_id for event in deltas} == {added.item.id, item.id, ended.output[0].id}
    assert ended.output[0].call_id == added.item.call_id
    assert len(deltas) > 1


def test_several_calls_are_items_of_their_own_in_a_stream_too(client):
    for seed in range(20):
        fields = {"tool_choice": "required", "extra_body": {"seed": seed}}
        whole = respond(client, **fields)
        if len(whole.output) > 1 and whole.status == "completed":
            break
    events = list(respond(client, stream=True, **fields))
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [(call.name, call.arguments) for call in done] == [(call.name, call.arguments) for call in whole.output]
    assert [item.id for item in events[-1].response.output] == [item.id for item in done]


def test_a_call_that_is_cut_off_is_incomplete(client):
    answer = respond(client, tool_choice={"type": "function", "name": "weather"}, max_output_tokens=70)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output[0].status == "incomplete"
    assert "city" in answer.output[0].arguments


def test_steered_and_unsteered_arms_call_functions_beside_each_other(client):
    body = SEED | {"arms": ["baseline", "heads"]}
    fields = {"tool_choice": "required", "parallel_tool_calls": False}
    answer = respond(client, extra_body=body, **fields)
    assert [item.arm for item in calls_of(answer)] == ["baseline", "heads"]
    alone = respond(client, **fields)
    assert answer.output[0].arguments == alone.output[0].arguments
    streamed = list(respond(client, extra_body=body, stream=True, **fields))[-1].response
    assert {item.arm: item.arguments for item in streamed.output} == {
        item.arm: item.arguments for item in answer.output
    }


def test_log_probabilities_are_those_of_text_only(client):
    asked = {
        "include": ["message.output_text.logprobs"],
        "max_output_tokens": 20,
        "extra_body": SEED | {"ignore_eos": True},
    }
    (message,) = respond(client, **asked).output
    assert len(message.content[0].logprobs) == 20
    events = respond(client, **asked, stream=True)
    streamed = [token for e in events if e.type == "response.output_text.delta" for token in e.logprobs]
    assert [token.logprob for token in streamed] == [token.logprob for token in message.content[0].logprobs]
    calls_of(respond(client, tool_choice="required", parallel_tool_calls=False, include=asked["include"]))


def test_an_agent_sends_the_call_and_its_result_back(client):
    conversation: list[Any] = [{"role": "user", "content": "What is the weather?"}]
    first = respond(client, input=conversation, tool_choice=CLOCK)
    conversation += first.output
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "17 degrees"}
    answer = respond(client, input=[*conversation, result], max_output_tokens=5)
    added = len(call.arguments) + len("17 degrees")
    assert answer.usage.input_tokens > first.usage.input_tokens + added
    parts = result | {"output": [{"type": "input_text", "text": "17 "}, {"type": "input_text", "text": "degrees"}]}
    again = respond(client, input=[*[item.model_dump() for item in first.output], parts], max_output_tokens=5)
    assert again.usage.output_tokens == 5


def test_the_helpers_of_the_official_client_parse_calls(client):
    asked = {
        "model": NAME,
        "input": "hi",
        "tools": [openai.pydantic_function_tool(Weather)["function"] | {"type": "function"}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "extra_body": SEED,
    }
    (call,) = client.responses.parse(**asked).output
    Weather.model_validate_json(call.arguments)
    with client.responses.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        (item,) = stream.get_final_response().output
    assert "response.function_call_arguments.delta" in kinds
    assert item.arguments == call.arguments


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a tool of OpenAI's": ({"tools": [{"type": "web_search"}]}, "tools.0.type", "must be 'function'"),
    "a tool of a chat": ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools.0.function", "unknown"),
    "no name": ({"tools": [{"type": "function"}]}, "tools.0.name", "required"),
    "the same name twice": ({"tools": [TOOLS[0], TOOLS[0]]}, "tools", "more than once"),
    "an unsupported keyword": (
        {"tools": [function("f", {"type": "object", "properties": {"a": {"not": {}}}})]},
        "tools.0.parameters",
        "tools.0.parameters.properties.a.not: this keyword is not supported",
    ),
    "a choice without functions": ({"tools": [], "tool_choice": "required"}, "tool_choice", "no tools"),
    "a function that does not exist": ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice", "no tool x"),
    "a limit on calls": ({"max_tool_calls": 1}, "max_tool_calls", "not supported"),
    "a result without its call": (
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        "input.0.call_id",
        "no function_call before it",
    ),
    "a call without a name": ({"input": [{"type": "function_call", "call_id": "c"}]}, "input.0.name", "required"),
    "another item": ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type", "'function_call_output'"),
}


@pytest.mark.parametrize(("fields", "param", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_called_is_refused_by_name(url, fields, param, message):
    answer = httpx.post(f"{url}/v1/responses", json=ASK | fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
