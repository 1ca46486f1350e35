"""Answers as server-sent events."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent

from steering_server.api.comparison import compare
from steering_server.api.errors import error_body
from steering_server.api.generation import Plan, begun, joined
from steering_server.api.schemas.responses import Comparison, ErrorResponse, Usage
from steering_server.backends.base import Backend
from steering_server.engine.requests import Chunk
from steering_server.errors import ServerError

DONE = "[DONE]"
PING_SECONDS = 15

ChunkShape = Callable[[int, Chunk], BaseModel]
"""Turns a sequence's index and chunk into the body of an event."""
LastShape = Callable[[Usage | None, Comparison | None], BaseModel]
"""Turns what is known at the end into the body of an event without choices."""


async def stream(
    plan: Plan,
    backend: Backend,
    *,
    opening: list[BaseModel],
    shape: ChunkShape,
    last: LastShape,
    with_usage: bool,
    headers: dict[str, str],
) -> EventSourceResponse:
    """Start generating and return the streamed answer. What fails before the first token is raised, not streamed."""
    reports = await begun(backend.generate(plan.requests))
    return EventSourceResponse(
        _events(plan, backend, reports, opening, shape, last, with_usage),
        headers=headers,
        ping=PING_SECONDS,
        sep="\n",
    )


async def _events(
    plan: Plan,
    backend: Backend,
    reports: AsyncGenerator[tuple[int, Chunk], None],
    opening: list[BaseModel],
    shape: ChunkShape,
    last: LastShape,
    with_usage: bool,
) -> AsyncIterator[ServerSentEvent]:
    try:
        for body in opening:
            yield _event(body)
        received: list[list[Chunk]] = [[] for _ in plan.slots]
        async with aclosing(reports):
            async for index, chunk in reports:
                received[index].append(chunk)
                yield _event(shape(index, chunk))
        answers = [joined(chunks) for chunks in received]
        comparison = await compare(plan, answers, backend)
        if comparison is not None:
            yield _event(last(None, comparison))
        if with_usage:
            yield _event(last(plan.usage(answers), None))
        yield ServerSentEvent(data=DONE)
    except ServerError as exc:
        # The status has been sent; the error becomes an event, and the stream ends without [DONE].
        yield _event(ErrorResponse(error=error_body(exc)[1]))


def _event(body: BaseModel) -> ServerSentEvent:
    return ServerSentEvent(data=body.model_dump_json())
