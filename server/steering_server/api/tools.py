"""Tools of a conversation: what the model is told of them, and the grammar of its calls."""

import json
from collections.abc import Sequence
from typing import Any

from steering_server.api.schemas.requests import ChatBody, Message
from steering_server.api.schemas.tools import Tool, ToolUse
from steering_server.api.schemas.v1_responses_request import ResponsesBody
from steering_server.api.structured import grammar_of, response_schema, text_schema
from steering_server.errors import RequestError
from steering_server.generation.grammars import Grammar, json_grammar, json_rule, rules
from steering_server.generation.json_schemas import enforceable
from steering_server.generation.tool_calls import Function, call_rules, instructions, written_call

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


def chat_grammar(body: ChatBody) -> Grammar | None:
    """Return the grammar of the answer: calls of tools, text of a given form, or either; None for any text.

    Raises:
        RequestError: a schema has a keyword that is not supported, or the text and the calls cannot be told apart.
    """
    if not body.tool_use.callable:
        return grammar_of(body)
    schema = response_schema(body)
    if schema is None and grammar_of(body) is not None:
        raise RequestError("tools: can be combined with response_format only, of all forms of text", param="tools")
    return _calls_or_text(body.tool_use, schema)


def responses_grammar(body: ResponsesBody) -> Grammar | None:
    """Return the same for ``POST /v1/responses``.

    Raises:
        RequestError: a schema has a keyword that is not supported.
    """
    schema = text_schema(body.text)
    if not body.tool_use.callable:
        return None if schema is None else json_grammar(*schema)
    return _calls_or_text(body.tool_use, schema)


def _calls_or_text(use: ToolUse, schema: tuple[dict[str, Any], str] | None) -> Grammar:
    places = {tool.function.name: place for place, tool in enumerate(use.given)}
    functions = [
        Function(tool.function.name, _parameters(tool, use.parameters_field.format(places[tool.function.name])))
        for tool in use.callable
    ]
    text = None if schema is None else json_rule(schema[0])
    return rules(
        call_rules(functions, required=use.requires_call, several=use.allows_several_calls, text=text), "tools"
    )


def offered(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return ``tools`` as chat templates read them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.function.name,
                "description": tool.function.description or "",
                "parameters": NO_PARAMETERS if tool.function.parameters is None else tool.function.parameters,
            },
        }
        for tool in tools
    ]


def native_calls(message: Message) -> dict[str, Any]:
    """Return the fields of a message about calls, for chat templates that know tools."""
    if not message.tool_calls:
        return {}
    return {
        "tool_calls": [
            {
                "id": call.id or "",
                "type": "function",
                "function": {"name": call.function.name, "arguments": _read(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    }


def spelled_out(messages: Sequence[dict[str, Any]], given: Sequence[Message], tools: Sequence[Tool]) -> list[Any]:
    """Return ``messages`` with tools, calls and results as text, for chat templates that know no tools.

    The instructions are added to the system's message. The results of consecutive calls are one message of the user.
    """
    spelled: list[dict[str, Any]] = []
    for message, original in zip(messages, given, strict=True):
        if message["role"] in ("tool", "function"):
            response = f"<tool_response>\n{message['content']}\n</tool_response>"
            if spelled and spelled[-1].get("is_result"):
                spelled[-1]["content"] += "\n" + response
            else:
                spelled.append({"role": "user", "content": response, "is_result": True})
        elif original.tool_calls:
            calls = [written_call(call.function.name, call.function.arguments) for call in original.tool_calls]
            spelled.append(message | {"content": "\n".join(filter(None, [message["content"], *calls]))})
        else:
            spelled.append(message)
    spelled = [{key: value for key, value in message.items() if key != "is_result"} for message in spelled]
    if not tools:
        return spelled
    told = instructions(offered(tools))
    if spelled[0]["role"] == "system":
        return [spelled[0] | {"content": f"{spelled[0]['content']}\n\n{told}"}, *spelled[1:]]
    return [{"role": "system", "content": told}, *spelled]


def in_order_of_calls(messages: Sequence[Message]) -> list[Message]:
    """Return ``messages`` with the results of each message's calls in the order of the calls."""
    ordered: list[Message] = []
    calls: dict[str | None, int] = {}
    begin = 0
    for message in messages:
        if message.role == "tool":
            results = [*ordered[begin:], message]
            ordered[begin:] = sorted(results, key=lambda result: calls.get(result.tool_call_id, len(calls)))
        else:
            ordered.append(message)
            calls = {call.id: place for place, call in enumerate(message.tool_calls or ())}
            begin = len(ordered)
    return ordered


def _parameters(tool: Tool, field: str) -> dict[str, Any]:
    given = NO_PARAMETERS if tool.function.parameters is None else tool.function.parameters
    if "type" not in given:
        given = {"type": "object", **given}
    if given["type"] != "object":
        raise RequestError(f"{field}.type: must be object, since arguments are one", param=field)
    return enforceable(given, field)


def _read(arguments: str) -> Any:
    """Return arguments as an object, as templates expect, or as the text if they are none."""
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return read if isinstance(read, dict) else arguments
