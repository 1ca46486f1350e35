"""Conversations, rendered to tokens by the model's chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from steering_server.api.schemas.fields import shown
from steering_server.api.schemas.requests import Message
from steering_server.api.schemas.strict import LeftOut, field_policy
from steering_server.api.schemas.tools import Tool
from steering_server.api.tools import in_order_of_calls, native_calls, offered, spelled_out
from steering_server.errors import RequestError
from steering_server.generation.tokenizer import TokenizerService

_ROLES = {"developer": "system"}  # OpenAI's newer name


def render(
    messages: Sequence[Message],
    tokenizer: TokenizerService,
    *,
    tools: Sequence[Tool] = (),
    begin_turn: bool,
    continue_last: bool = False,
    add_special: bool = False,
    variables: Mapping[str, Any] | None = None,
    param: str = "messages",
) -> tuple[int, ...]:
    """Return the tokens of ``messages``, given by the field ``param``; see :meth:`.TokenizerService.render_chat`.

    ``tools`` are offered to the model, by its chat template if that writes calls as we read them.

    Raises:
        RequestError: the model has no chat template, or it rejects the messages or the ``variables``.
    """
    native = tokenizer.template_writes_calls
    messages = in_order_of_calls(messages)
    rendered = [
        {
            "role": _ROLES.get(message.role, message.role),
            "content": message.text,
            **message.for_template,
            **(native_calls(message) if native else {}),
        }
        for message in messages
    ]
    return tokenizer.render_chat(
        rendered if native else spelled_out(rendered, messages, tools),
        tools=offered(tools) if native and tools else None,
        begin_turn=begin_turn,
        continue_last=continue_last,
        add_special=add_special,
        variables=variables,
        param=param,
    )


def unread_fields(messages: Sequence[Message], tokenizer: TokenizerService, *, path: str = "messages") -> LeftOut:
    """Return the fields of ``messages``, which are at ``path`` of the body, that the chat template does not read.

    Raises:
        RequestError: there are some, and the field policy is strict.
    """
    given = dict.fromkeys(
        name
        for message in messages
        for name in message.for_template
        if not (message.role == "tool" and name == "tool_call_id")  # it orders the results of calls
    )
    return _unread([f"{path}.{name}" for name in given if not tokenizer.template_reads(name)])


def unread_variables(variables: Mapping[str, Any] | None, tokenizer: TokenizerService) -> LeftOut:
    """Return those of the ``variables`` for the chat template, ``chat_template_kwargs``, that it does not read.

    Raises:
        RequestError: there are some, and the field policy is strict.
    """
    return _unread([f"chat_template_kwargs.{name}" for name in variables or () if not tokenizer.template_names(name)])


def _unread(unread: Sequence[str]) -> LeftOut:
    if unread and field_policy.get() == "strict":
        raise RequestError(
            f"{shown(unread[0])}: the model's chat template does not read it, and the server was started with --strict",
            param=shown(unread[0]),
        )
    return LeftOut(ignored=tuple(unread))
