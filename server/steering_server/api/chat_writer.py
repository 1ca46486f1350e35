"""Answers to chats in OpenAI's format: text and calls of tools, whole or in chunks."""

import uuid
from collections.abc import Sequence

from pydantic import BaseModel

from steering_server.api.choices_writer import ChoicesWriter
from steering_server.api.logprobs import chat_logprobs
from steering_server.api.plan import Plan
from steering_server.api.schemas.requests import ChatBody
from steering_server.api.schemas.responses import (
    CalledFunction,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatFinishReason,
    ChatLogprobs,
    ChatMessage,
    Comparison,
    FunctionDelta,
    ToolCallDelta,
    ToolCallMade,
    Usage,
)
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk
from steering_server.generation.tool_calls import CallArguments, CallReader, CallStart, Part, TextPart


class ChatWriter(ChoicesWriter[ChatBody, ChatChunkChoice]):
    """Formats the answer to one request."""

    id_prefix = "chatcmpl"

    def __init__(self, plan: Plan, body: ChatBody, backend: Backend) -> None:
        """Begin the answer to ``body``, whose sequences ``plan`` has."""
        super().__init__(plan, body, backend)
        self._may_call = bool(body.tool_use.callable)
        self._readers = [CallReader() for _ in plan.sequences] if self._may_call else []
        """Readers of the calls in each streamed sequence, if it may have any."""

    def whole(
        self, plan: Plan, answers: Sequence[Chunk], usage: Usage, comparison: Comparison | None
    ) -> ChatCompletion:
        """Return the body of an answer that is not streamed."""
        choices = [
            ChatChoice(
                index=index,
                message=message,
                logprobs=self._logprobs(answer),
                finish_reason=finish_reason,
                prompt_logprobs=self.prompt_logprobs(answer) if plan.arms.named else None,
                token_ids=self.token_ids(answer.tokens),
                arm=self.arm(index),
            )
            for index, answer in enumerate(answers)
            for message, finish_reason in [self._message(answer)]
        ]
        return ChatCompletion(
            choices=choices,
            prompt_logprobs=None if plan.arms.named else self.prompt_logprobs(answers[0]),
            prompt_token_ids=self.token_ids(plan.sequences[0].prompt.tokens),
            **self.around(usage, comparison),
        )

    def openings(self, usage: Usage | None) -> list[BaseModel]:
        """Return the chunks that open a stream, one for each choice."""
        # An answer that turns out to be a call has no content.
        delta = ChatDelta(role="assistant", content=None if self._readers else "")
        chunks = [
            self.envelope([ChatChunkChoice(index=index, delta=delta, finish_reason=None, arm=self.arm(index))], usage)
            for index in range(len(self.plan.sequences))
        ]
        prompt = self.token_ids(self.plan.sequences[0].prompt.tokens)
        return [chunks[0].model_copy(update={"prompt_token_ids": prompt}), *chunks[1:]]

    def chunk(self, index: int, chunk: Chunk, usage: Usage | None) -> list[BaseModel]:
        """Return the chunks of a stream for what a sequence has generated: one for each part of a call."""
        deltas = [ChatDelta(content=chunk.text) if chunk.text else ChatDelta()]
        finish_reason: ChatFinishReason | None = chunk.finish_reason
        if self._readers:
            reader = self._readers[index]
            parts = reader.read(chunk.text) + (reader.finish() if chunk.finish_reason else [])
            deltas = list(map(_delta, parts)) or [ChatDelta()]
            finish_reason = _finish_reason(reader, chunk)
        logprobs = self._logprobs(chunk) if chunk.logprobs else None
        last = len(deltas) - 1
        return [
            self.envelope(
                [
                    ChatChunkChoice(
                        index=index,
                        delta=delta,
                        logprobs=logprobs if place == 0 else None,
                        finish_reason=finish_reason if place == last else None,
                        token_ids=self.token_ids(chunk.tokens) if place == 0 else None,
                        arm=self.arm(index),
                    )
                ],
                usage,
            )
            for place, delta in enumerate(deltas)
        ]

    def envelope(
        self, choices: list[ChatChunkChoice], usage: Usage | None = None, comparison: Comparison | None = None
    ) -> ChatCompletionChunk:
        """Return a chunk of a stream."""
        return ChatCompletionChunk(choices=choices, **self.around(usage, comparison))

    def _logprobs(self, chunk: Chunk) -> ChatLogprobs | None:
        return chat_logprobs(chunk, self.backend.tokenizer) if self.plan.sampling.logprobs is not None else None

    def _message(self, answer: Chunk) -> tuple[ChatMessage, ChatFinishReason | None]:
        if not self._may_call:
            return ChatMessage(content=answer.text), answer.finish_reason
        reader = CallReader()
        parts = reader.read(answer.text) + reader.finish()
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        calls = [
            ToolCallMade(
                id=_new_id(),
                function=CalledFunction(
                    name=start.name,
                    arguments="".join(
                        part.text for part in parts if isinstance(part, CallArguments) and part.index == start.index
                    ),
                ),
            )
            for start in parts
            if isinstance(start, CallStart)
        ]
        message = ChatMessage(content=text or None, tool_calls=calls) if calls else ChatMessage(content=text)
        return message, _finish_reason(reader, answer)


def _delta(part: Part) -> ChatDelta:
    if isinstance(part, TextPart):
        return ChatDelta(content=part.text)
    if isinstance(part, CallStart):
        function = FunctionDelta(name=part.name, arguments="")
        return ChatDelta(tool_calls=[ToolCallDelta(index=part.index, id=_new_id(), type="function", function=function)])
    return ChatDelta(tool_calls=[ToolCallDelta(index=part.index, function=FunctionDelta(arguments=part.text))])


def _finish_reason(reader: CallReader, chunk: Chunk) -> ChatFinishReason | None:
    ends_with_call = chunk.finish_reason == "stop" and reader.has_calls and not reader.is_within_call
    return "tool_calls" if ends_with_call else chunk.finish_reason


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex}"
