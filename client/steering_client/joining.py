"""The chunks of a stream joined to the answer that the request without streaming gets."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from steering_client.types import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
    FunctionCall,
    ToolCall,
    ToolCallDelta,
)

ChoiceT = TypeVar("ChoiceT", CompletionChoice, ChatChunkChoice)


def completion(chunks: Sequence[CompletionChunk]) -> Completion:
    """Join the chunks of a streamed completion. There is at least one."""
    choices = tuple(_completion_choice(parts) for parts in _by_index(c for chunk in chunks for c in chunk.choices))
    return Completion.model_validate(_envelope(chunks) | {"choices": choices})


def chat_completion(chunks: Sequence[ChatChunk]) -> ChatCompletion:
    """Join the chunks of a streamed chat answer. There is at least one."""
    choices = tuple(_chat_choice(parts) for parts in _by_index(c for chunk in chunks for c in chunk.choices))
    return ChatCompletion.model_validate(_envelope(chunks) | {"choices": choices})


def _envelope(chunks: Sequence[CompletionChunk] | Sequence[ChatChunk]) -> dict[str, object]:
    first = chunks[0]
    return {
        "id": first.id,
        "created": first.created,
        "model": first.model,
        "steering": first.steering,
        "exposure": first.exposure,
        "usage": next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), None),
        "comparison": next((chunk.comparison for chunk in reversed(chunks) if chunk.comparison is not None), None),
    }


def _by_index(parts: Iterable[ChoiceT]) -> list[list[ChoiceT]]:
    """Return the parts of each choice, in the order of their indices."""
    choices: dict[int, list[ChoiceT]] = {}
    for part in parts:
        choices.setdefault(part.index, []).append(part)
    return [choices[index] for index in sorted(choices)]


def _completion_choice(parts: Sequence[CompletionChoice]) -> CompletionChoice:
    given = [part.logprobs for part in parts if part.logprobs is not None]
    logprobs = None
    if given:
        has_top = any(part.top_logprobs is not None for part in given)
        logprobs = CompletionLogprobs(
            tokens=tuple(token for part in given for token in part.tokens),
            token_logprobs=tuple(value for part in given for value in part.token_logprobs),
            top_logprobs=tuple(top for part in given for top in part.top_logprobs or ()) if has_top else None,
            text_offset=tuple(offset for part in given for offset in part.text_offset),
        )
    return CompletionChoice(
        index=parts[0].index,
        text="".join(part.text for part in parts),
        logprobs=logprobs,
        finish_reason=parts[-1].finish_reason,
        arm=parts[0].arm,
    )


def _chat_choice(parts: Sequence[ChatChunkChoice]) -> ChatChoice:
    given = [part.logprobs for part in parts if part.logprobs is not None]
    texts = [part.delta.content for part in parts if part.delta.content is not None]
    calls = _tool_calls(delta for part in parts for delta in part.delta.tool_calls or ())
    return ChatChoice(
        index=parts[0].index,
        message=ChatMessage(
            role=next((part.delta.role for part in parts if part.delta.role is not None), "assistant"),
            content="".join(texts) if texts and not (calls and not any(texts)) else None,
            tool_calls=calls or None,
        ),
        logprobs=ChatLogprobs(content=tuple(token for part in given for token in part.content)) if given else None,
        finish_reason=next((part.finish_reason for part in reversed(parts) if part.finish_reason is not None), None),
        arm=parts[0].arm,
    )


def _tool_calls(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCall, ...]:
    """Join the parts of each call: the first has its id and name, all together have its arguments."""
    calls: dict[int, list[ToolCallDelta]] = {}
    for delta in deltas:
        calls.setdefault(delta.index, []).append(delta)
    return tuple(
        ToolCall(
            id=next((part.id for part in parts if part.id is not None), ""),
            function=FunctionCall(
                name="".join(part.function.name or "" for part in parts if part.function is not None),
                arguments="".join(part.function.arguments or "" for part in parts if part.function is not None),
            ),
        )
        for _, parts in sorted(calls.items())
    )
