"""Answers of ``POST /v1/responses``, whole or as events. Each arm is a message of the output, or calls of functions."""

import time
import uuid
from collections.abc import Sequence
from itertools import count
from typing import Any

from pydantic import BaseModel

from steering_server.api.logprobs import chat_logprobs
from steering_server.api.plan import Plan
from steering_server.api.responses_items import ArmOutput, Output
from steering_server.api.schemas.responses import ChatTokenLogprob, Comparison, ErrorBody, Usage
from steering_server.api.schemas.v1_responses_answer import (
    FailureOfResponse,
    IncompleteDetails,
    OfferedFunction,
    OutputItem,
    ResponseEvent,
    ResponseObject,
    ResponsesUsage,
    Status,
    TextConfig,
)
from steering_server.api.schemas.v1_responses_request import ResponsesBody
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk


class ResponsesWriter:
    """Formats the answer to one request."""

    ends_with_done = False
    counts_always = False

    def __init__(self, plan: Plan, body: ResponsesBody, backend: Backend) -> None:
        """Begin the answer to ``body``, whose sequences ``plan`` has, one for each arm."""
        self._plan = plan
        self._body = body
        self._backend = backend
        self._id = f"resp_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._numbers = count()
        self._output = Output(self._numbers)
        may_call = bool(body.tool_use.callable)
        self._arms = [
            ArmOutput(self._output, each.arm.label if plan.arms.named else None, may_call=may_call)
            for each in plan.sequences
        ]

    def whole(
        self, plan: Plan, answers: Sequence[Chunk], usage: Usage, comparison: Comparison | None
    ) -> ResponseObject:
        """Return the body of an answer that is not streamed."""
        for arm, answer in zip(self._arms, answers, strict=True):
            arm.begin()
            # Token by token, as in a stream, log-probabilities are told apart by the item that they belong to.
            for chunk in [answer] if self._body.logprobs is None else answer.by_token():
                arm.read(chunk, self._logprobs(chunk))
        return self._ended(usage, comparison)

    def openings(self, usage: Usage | None) -> list[BaseModel]:
        """Return the first events of a stream."""
        begun = self._response("in_progress", [])
        events: list[BaseModel] = [
            ResponseEvent(type="response.created", sequence_number=next(self._numbers), response=begun),
            ResponseEvent(type="response.in_progress", sequence_number=next(self._numbers), response=begun),
        ]
        for arm in self._arms:
            events += arm.begin()
        return events

    def chunk(self, index: int, chunk: Chunk, usage: Usage | None) -> Sequence[BaseModel]:
        """Return the events for a chunk of sequence ``index``."""
        return self._arms[index].read(chunk, self._logprobs(chunk))

    def endings(self, usage: Usage, comparison: Comparison | None) -> list[BaseModel]:
        """Return the last event of a stream."""
        ended = self._ended(usage, comparison)
        return [
            ResponseEvent(
                type="response.completed" if ended.status == "completed" else "response.incomplete",
                sequence_number=next(self._numbers),
                response=ended,
            )
        ]

    def failure(self, error: ErrorBody) -> BaseModel:
        """Return the event that ends a stream after an error."""
        failed = self._response(
            "failed",
            self._output.objects(ended=True),
            error=FailureOfResponse(code=error.code or "server_error", message=error.message),
        )
        return ResponseEvent(type="response.failed", sequence_number=next(self._numbers), response=failed)

    def _ended(self, usage: Usage, comparison: Comparison | None) -> ResponseObject:
        is_complete = all(arm.is_complete for arm in self._arms)
        items = self._output.objects(ended=True)
        return self._response("completed" if is_complete else "incomplete", items, usage, comparison)

    def _response(
        self,
        status: Status,
        output: list[OutputItem],
        usage: Usage | None = None,
        comparison: Comparison | None = None,
        error: FailureOfResponse | None = None,
    ) -> ResponseObject:
        body = self._body
        return ResponseObject(
            id=self._id,
            created_at=self._created,
            completed_at=int(time.time()) if status == "completed" else None,
            status=status,
            error=error,
            incomplete_details=IncompleteDetails() if status == "incomplete" else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=self._plan.arms.model,
            output=output,
            parallel_tool_calls=body.parallel_tool_calls,
            temperature=body.temperature,
            text=_text(body),
            tool_choice=_tool_choice(body),
            tools=_tools(body),
            top_logprobs=body.top_logprobs or 0,
            top_p=body.top_p,
            usage=None if usage is None else _usage(usage),
            user=body.user,
            steering=self._plan.arms.steering,
            exposure=self._plan.arms.exposure,
            comparison=comparison,
        )

    def _logprobs(self, chunk: Chunk) -> list[ChatTokenLogprob]:
        if self._body.logprobs is None:
            return []
        return chat_logprobs(chunk, self._backend.tokenizer).content


def _text(body: ResponsesBody) -> TextConfig:
    if body.text is None or body.text.format is None:
        return TextConfig()
    return TextConfig(format=body.text.format.model_dump(by_alias=True, exclude_none=True))


def _tool_choice(body: ResponsesBody) -> str | dict[str, Any]:
    choice = body.tool_choice or "auto"
    return choice if isinstance(choice, str) else choice.model_dump()


def _tools(body: ResponsesBody) -> list[OfferedFunction]:
    return [
        OfferedFunction(name=tool.name, description=tool.description, parameters=tool.parameters)
        for tool in body.tools or ()
    ]


def _usage(usage: Usage) -> ResponsesUsage:
    return ResponsesUsage(
        input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, total_tokens=usage.total_tokens
    )
