"""Tools: what the model is told of them, and the calls it answers with."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
import torch
from pydantic import BaseModel, Field

from steering_client import SteeringClient
from steering_profiles.tokenization import Vocabulary
from steering_server.api.conversation import render
from steering_server.api.schemas.requests import ChatBody
from steering_server.generation.tokenizer import TokenizerService
from tests.api.functions import ARGUMENTS, CLOCK_ARGUMENTS, WEATHER_ARGUMENTS
from tests.builders import build_model, build_tokenizer, profiles_for
from tests.serving import serving

NAME = "tiny-llama"
MESSAGES = [{"role": "user", "content": "What is the weather in Paris?"}]


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "description": f"The {name}.", **more}
    return {"type": "function", "function": function if parameters is None else function | {"parameters": parameters}}


TOOLS = [tool("weather", WEATHER_ARGUMENTS, strict=True), tool("clock", CLOCK_ARGUMENTS), tool("ping")]


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


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    body = {"model": NAME, "messages": MESSAGES, "max_tokens": 300, "tools": TOOLS, "seed": 4}
    return client.chat.completions.create(**body | fields)


def check_calls(message: Any) -> list[str]:
    """Check the calls of a message; return their names."""
    assert message.content is None
    for call in message.tool_calls:
        assert call.id.startswith("call_")
        assert call.type == "function"
        jsonschema_rs.validate(ARGUMENTS[call.function.name], json.loads(call.function.arguments))
    assert len({call.id for call in message.tool_calls}) == len(message.tool_calls)
    return [call.function.name for call in message.tool_calls]


def test_a_required_call_has_valid_arguments(client):
    choices = chat(client, tool_choice="required", parallel_tool_calls=False, n=6).choices
    names = [check_calls(choice.message) for choice in choices]
    assert all(len(one) == 1 for one in names)
    assert len({one[0] for one in names}) > 1
    assert {choice.finish_reason for choice in choices} == {"tool_calls"}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_named_tool_is_called_once(client, name):
    (choice,) = chat(client, tool_choice={"type": "function", "function": {"name": name}}).choices
    assert check_calls(choice.message) == [name]
    assert choice.finish_reason == "tool_calls"


def test_allowed_tools_are_the_only_ones_that_are_called(client):
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]}
    fields = {"tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}, "parallel_tool_calls": False}
    choices = chat(client, n=3, **fields).choices
    called = {name for choice in choices for name in check_calls(choice.message)}
    assert called == {"clock"}


def test_several_calls_come_in_one_answer_where_they_are_allowed(client):
    choices = chat(client, tool_choice="required", n=8, max_tokens=600).choices
    finished = [check_calls(choice.message) for choice in choices if choice.finish_reason == "tool_calls"]
    assert any(len(names) > 1 for names in finished)


def test_the_model_may_answer_with_text(client):
    (choice,) = chat(client, tool_choice="auto", max_tokens=20).choices
    assert choice.message.content
    assert choice.message.tool_calls is None
    assert choice.finish_reason in ("stop", "length")


def test_without_a_choice_the_model_decides(client):
    assert chat(client, max_tokens=20).choices == chat(client, max_tokens=20, tool_choice="auto").choices


def test_tools_that_may_not_be_called_change_nothing(client):
    plain = client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=12, seed=4)
    assert chat(client, tool_choice="none", max_tokens=12).choices == plain.choices


def test_an_answer_is_a_call_or_of_the_given_form(client):
    choices = chat(client, response_format={"type": "json_object"}, n=8).choices
    finished = [choice for choice in choices if choice.finish_reason != "length"]
    assert finished
    for choice in finished:
        if choice.message.tool_calls:
            check_calls(choice.message)
        else:
            assert isinstance(json.loads(choice.message.content), dict)


def test_steered_and_unsteered_arms_call_tools_beside_each_other(client):
    fields = {"tool_choice": "required", "parallel_tool_calls": False, "n": 2, "logprobs": True}
    answer = chat(client, extra_body={"arms": ["baseline", "heads"]}, **fields)
    assert [choice.arm for choice in answer.choices] == ["baseline"] * 2 + ["heads"] * 2
    written = {}
    for choice in answer.choices:
        check_calls(choice.message)
        assert choice.logprobs.content
        written.setdefault(choice.arm, []).append(choice.message.tool_calls[0].function)
    assert written["baseline"] != written["heads"]
    alone = [choice.message.tool_calls[0].function for choice in chat(client, **fields).choices]
    assert written["baseline"] == alone


def test_a_stream_gives_id_and_name_first_and_then_the_arguments_in_pieces(client):
    fields = {"tool_choice": "required", "max_tokens": 600}
    (whole,) = chat(client, **fields).choices
    chunks = [chunk.choices[0] for chunk in chat(client, stream=True, **fields)]
    assert chunks[0].delta.role == "assistant"
    assert all(chunk.delta.content is None for chunk in chunks)
    assert chunks[-1].finish_reason == whole.finish_reason
    calls: list[dict[str, Any]] = []
    pieces = 0
    for (piece,) in (chunk.delta.tool_calls for chunk in chunks if chunk.delta.tool_calls):
        if piece.index == len(calls):
            assert piece.id
            assert piece.type == "function"
            assert piece.function.arguments == ""
            calls.append({"name": piece.function.name, "arguments": ""})
        else:
            assert (piece.id, piece.function.name) == (None, None)
            calls[piece.index]["arguments"] += piece.function.arguments
            pieces += 1
    assert calls == [call.function.model_dump() for call in whole.message.tool_calls]
    assert pieces > 2 * len(calls)


def test_the_official_streaming_helper_reads_the_calls(client):
    with client.chat.completions.stream(
        model=NAME,
        messages=MESSAGES,
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required",
        parallel_tool_calls=False,
        seed=1,
    ) as stream:
        kinds = {event.type for event in stream}
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert isinstance(call.function.parsed_arguments, Weather)


def test_our_client_reads_calls_whole_and_streamed(url):
    options: Any = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "seed": 4}
    with SteeringClient(url) as client:
        (choice,) = client.chat(MESSAGES, **options).choices
        deltas = [
            call
            for chunk in client.stream_chat(MESSAGES, **options)
            for choice in chunk.choices
            for call in choice.delta.tool_calls or ()
        ]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert (call.function.name, call.function.arguments) == (
        deltas[0].function.name,
        "".join(delta.function.arguments for delta in deltas),
    )


def test_a_call_that_is_cut_off_ends_with_length(client):
    named = {"type": "function", "function": {"name": "weather"}}
    (choice,) = chat(client, tool_choice=named, max_tokens=70).choices
    assert choice.finish_reason == "length"
    assert WEATHER_ARGUMENTS["required"][0] in choice.message.tool_calls[0].function.arguments


def test_many_tools_are_offered_at_once(client):
    many = [tool(f"tool_{i}") for i in range(28)]
    (choice,) = chat(client, tools=many, max_tokens=5).choices
    assert choice.finish_reason in ("stop", "length")
    (choice,) = chat(client, tools=many, tool_choice="required", parallel_tool_calls=False).choices
    assert choice.message.tool_calls[0].function.name.startswith("tool_")


def test_a_call_and_its_result_are_sent_back(client):
    message = chat(client, tool_choice="required", parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "17 degrees"}
    plain = chat(client, max_tokens=5)
    answer = chat(client, messages=[*MESSAGES, message.model_dump(), result], max_tokens=5)
    added = len(message.tool_calls[0].function.arguments) + len("17 degrees")
    assert answer.usage.prompt_tokens > plain.usage.prompt_tokens + added


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "another type": ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0", "custom"),
    "no name": ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name", "required"),
    "a bad name": ({"tools": [tool("get weather")]}, "tools.0.function.name", "pattern"),
    "the same name twice": ({"tools": [TOOLS[0], TOOLS[0]]}, "tools", "more than once"),
    "an unsupported keyword": (
        {"tools": [TOOLS[0], tool("f", {"type": "object", "properties": {"a": {"not": {}}}})]},
        "tools",
        "tools.1.function.parameters.properties.a.not: this keyword is not supported",
    ),
    "arguments that are no object": ({"tools": [tool("f", {"type": "string"})]}, "parameters", "must be object"),
    "a choice without tools": ({"tools": [], "tool_choice": "required"}, "tool_choice", "no tools"),
    "a tool that does not exist": (
        {"tool_choice": {"type": "function", "function": {"name": "x"}}},
        "tool_choice",
        "no tool x",
    ),
    "an unknown choice": ({"tool_choice": "any"}, "tool_choice", "required"),
    "too many tools": ({"tools": [tool(f"t{i}") for i in range(129)]}, "tools", "128"),
    "a form besides JSON": ({"guided_regex": "a"}, "tools", "response_format"),
}


@pytest.mark.parametrize(("fields", "param", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_called_is_refused_by_name(url, fields, param, message):
    answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": MESSAGES, "tools": TOOLS} | fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert param in error["param"]
    assert message in error["message"]


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather and time?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
            {"id": "2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "noon"}]},
]
KNOWS_TOOLS = (
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% for message in messages %}[{{ message.role }}]"
    "{{ message.content }}{% for call in message.tool_calls %}<tool_call>{{ call.function.name }} "
    "{{ call.function.arguments.city }}</tool_call>{% endfor %}{% endfor %}"
)


def rendered(template: str | None = None, conversation: Any = CONVERSATION) -> str:
    """The prompt of a conversation with tools."""
    tokenizer = build_tokenizer()
    if template is not None:
        tokenizer.chat_template = template
    service = TokenizerService(tokenizer, Vocabulary(tokenizer), "model")
    body = ChatBody.model_validate({"messages": conversation, "tools": TOOLS})
    return service.decode(render(body.messages, service, tools=body.tool_use.offered, begin_turn=False))


def test_a_template_without_tools_gets_them_as_text():
    prompt = rendered()
    assert prompt.startswith("<|system|>Be brief.\n\n# Tools\n")
    assert all(json.dumps(WEATHER_ARGUMENTS["properties"]) in prompt for _ in TOOLS)
    assert (
        "<|user|>Weather and time?\n"
        '<|assistant|><tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>\n'
        "<|user|><tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>\n"
    ) in prompt


def test_a_template_that_knows_tools_gets_them_as_they_are():
    prompt = rendered(KNOWS_TOOLS + "{# arguments #}")
    assert prompt.startswith('{"type": "function", "function": {"name": "weather"')
    assert prompt.endswith(
        "[system]Be brief.[user]Weather and time?[assistant]<tool_call>weather Paris</tool_call>"
        "<tool_call>clock </tool_call>[tool]sunny[tool]noon"
    )


@pytest.mark.parametrize("template", [None, KNOWS_TOOLS + "{# arguments #}"], ids=["as text", "as they are"])
def test_results_are_put_into_the_order_of_the_calls(template):
    *before, first, second = CONVERSATION
    assert rendered(template, [*before, second, first]) == rendered(template)
