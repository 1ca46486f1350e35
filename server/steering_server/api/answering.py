"""Answers to a request: one JSON object, or server-sent events."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import anyio
from fastapi import Request, Response
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent

from steering_server.api.comparison import compare_arms
from steering_server.api.disconnect import unless_gone
from steering_server.api.errors import error_body
from steering_server.api.plan import Plan, collect, started
from steering_server.api.schemas.requests import GenerationBody
from steering_server.api.schemas.responses import Comparison, ErrorResponse, Usage
from steering_server.errors import ServerError
from steering_server.generation.backend import Backend
from steering_server.generation.requests import BatchOutput, Chunk

DONE = "[DONE]"
PING_SECONDS = 15
_LINE = "\n"  # as in OpenAI's streams; the library's default, CRLF, is not handled by all clients

STEERED_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer. With `stream`, its chunks as server-sent events, followed by `data: [DONE]`",
        "headers": {
            "x-steering": {"description": "The profiles that each arm applied", "schema": {"type": "string"}},
            "x-batch-invariant": {
                "description": "Whether answers are bit for bit the same whatever else runs; /v1/models says why not",
                "schema": {"type": "string", "enum": ["yes", "no"]},
            },
        },
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
"""Part of the OpenAPI description of the routes that generate text."""


class Writer(Protocol):
    """Formats generated text as one route's response bodies."""

    def whole(self, answers: Sequence[Chunk], comparison: Comparison | None) -> BaseModel:
        """Return the body of an answer that is not streamed."""
        ...

    def openings(self) -> list[BaseModel]:
        """Return the first events of a stream."""
        ...

    def chunk(self, index: int, chunk: Chunk) -> BaseModel:
        """Return the event for a chunk of sequence ``index``."""
        ...

    def last(self, usage: Usage | None, comparison: Comparison | None) -> BaseModel:
        """Return an event at the end of a stream, without choices."""
        ...


async def answer(
    request: Request, body: GenerationBody, plan: Plan, output: BatchOutput, writer: Writer, backend: Backend
) -> Response:
    """Answer with ``output``, which the backend generates for ``plan``, as ``body`` asks.

    Errors before the first token are raised, not streamed.
    """
    invariant = "yes" if backend.model.batch_invariance.holds else "no"
    headers = {"x-steering": plan.arms.header, "x-batch-invariant": invariant}
    if body.stream:
        # While a stream waits in the queue, only this notices that its client has disconnected.
        chunks = await unless_gone(request, started(output))
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        events = _events(plan, backend, chunks, writer, with_usage=with_usage)
        return EventSourceResponse(events, headers=headers, ping=PING_SECONDS, sep=_LINE)
    answers = await unless_gone(request, collect(output, len(plan.sequences)))
    comparison = await unless_gone(request, compare_arms(plan, answers, backend))
    # With alternatives for every token this takes seconds, during which other requests must be served.
    whole = await anyio.to_thread.run_sync(lambda: writer.whole(answers, comparison).model_dump_json())
    return Response(whole, headers=headers, media_type="application/json")


async def _events(
    plan: Plan, backend: Backend, output: BatchOutput, writer: Writer, *, with_usage: bool
) -> AsyncIterator[ServerSentEvent]:
    try:
        for body in writer.openings():
            yield _event(body)
        received: list[list[Chunk]] = [[] for _ in plan.sequences]
        async with aclosing(output):
            async for index, chunk in output:
                received[index].append(chunk)
                yield _event(writer.chunk(index, chunk))
        answers = [Chunk.joined(chunks) for chunks in received]
        comparison = await compare_arms(plan, answers, backend)
        if comparison is not None:
            yield _event(writer.last(None, comparison))
        if with_usage:
            yield _event(writer.last(plan.usage(answers), None))
        yield ServerSentEvent(data=DONE, sep=_LINE)
    except ServerError as exc:
        # The status has been sent, so the error becomes an event, and the stream ends without [DONE].
        yield _event(ErrorResponse(error=error_body(exc)[1]))


def _event(body: BaseModel) -> ServerSentEvent:
    return ServerSentEvent(data=body.model_dump_json(), sep=_LINE)
