"""Run a plan and answer with it: whole, or as server-sent events."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import anyio
from fastapi import Request, Response
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent

from steering_server.api.comparison import compare_arms
from steering_server.api.disconnect import unless_gone
from steering_server.api.errors import error_body
from steering_server.api.plan import Plan, begun, gather
from steering_server.api.schemas.requests import GenerationBody
from steering_server.api.schemas.responses import Comparison, ErrorResponse, Usage
from steering_server.errors import ServerError
from steering_server.generation.backend import Backend
from steering_server.generation.requests import Chunk

DONE = "[DONE]"
PING_SECONDS = 15
_LINE = "\n"  # as OpenAI ends lines; the events' own default is CRLF, which many a client does not split at

STEERED_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, chunks of it as server-sent events, closed by `data: [DONE]`",
        "headers": {"x-steering": {"description": "What each arm applied", "schema": {"type": "string"}}},
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
"""For the OpenAPI description of the routes that answer here."""


class Writer(Protocol):
    """Puts what was generated into the shape of one route."""

    def whole(self, answers: Sequence[Chunk], comparison: Comparison | None) -> BaseModel:
        """Write the whole answer."""
        ...

    def openings(self) -> list[BaseModel]:
        """Write what a stream begins with."""
        ...

    def chunk(self, index: int, chunk: Chunk) -> BaseModel:
        """Write what sequence ``index`` has to report."""
        ...

    def last(self, usage: Usage | None, comparison: Comparison | None) -> BaseModel:
        """Write what is known at the end of a stream; it has no choices."""
        ...


async def answer(request: Request, body: GenerationBody, plan: Plan, writer: Writer, backend: Backend) -> Response:
    """Run ``plan`` and answer as ``body`` asks. What fails before the first token is raised, not streamed."""
    headers = {"x-steering": plan.arms.header}
    if body.stream:
        # A stream that waits in the queue has nobody to tell that its client went away but this.
        reports = await unless_gone(request, begun(backend.generate(plan.requests)))
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        events = _events(plan, backend, reports, writer, with_usage=with_usage)
        return EventSourceResponse(events, headers=headers, ping=PING_SECONDS, sep=_LINE)
    answers = await unless_gone(request, gather(backend, plan.requests))
    comparison = await unless_gone(request, compare_arms(plan, answers, backend))
    # With alternatives to every token this is seconds of work, during which others are to be served.
    whole = await anyio.to_thread.run_sync(lambda: writer.whole(answers, comparison).model_dump_json())
    return Response(whole, headers=headers, media_type="application/json")


async def _events(
    plan: Plan, backend: Backend, reports: AsyncGenerator[tuple[int, Chunk], None], writer: Writer, *, with_usage: bool
) -> AsyncIterator[ServerSentEvent]:
    try:
        for body in writer.openings():
            yield _event(body)
        received: list[list[Chunk]] = [[] for _ in plan.sequences]
        async with aclosing(reports):
            async for index, chunk in reports:
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
        # The status has been sent; the error becomes an event, and the stream ends without [DONE].
        yield _event(ErrorResponse(error=error_body(exc)[1]))


def _event(body: BaseModel) -> ServerSentEvent:
    return ServerSentEvent(data=body.model_dump_json(), sep=_LINE)
