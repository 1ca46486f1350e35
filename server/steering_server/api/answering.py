"""Answers to a request: one JSON object, or server-sent events."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import anyio
from fastapi import Request, Response
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

from steering_server.access.callers import Caller
from steering_server.api.best_of import best
from steering_server.api.comparison import compare_arms
from steering_server.api.deadline import Deadline
from steering_server.api.disconnect import unless_gone
from steering_server.api.errors import error_body, note_error
from steering_server.api.event_encoding import DONE, EventEncoder
from steering_server.api.metering import metered
from steering_server.api.plan import Plan, collect, started
from steering_server.api.schemas.requests import SamplingBody
from steering_server.api.schemas.responses import Comparison, ErrorBody, Usage
from steering_server.api.schemas.strict import LeftOut
from steering_server.errors import ServerError
from steering_server.generation.backend import Backend
from steering_server.generation.requests import BatchOutput, Chunk

PING_SECONDS = 15
_LINE = "\n"  # of pings; see event_encoding

STEERED_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer. With `stream`, its chunks as server-sent events, followed by `data: [DONE]`",
        "headers": {
            "x-steering": {"description": "The profiles that each arm applied", "schema": {"type": "string"}},
            "x-batch-invariant": {
                "description": "Whether answers are bit for bit the same whatever else runs; /v1/models says why not",
                "schema": {"type": "string", "enum": ["yes", "no"]},
            },
            "x-exposure-id": {
                "description": "The id by which outcomes are sent, where an experiment has assigned the request",
                "schema": {"type": "string"},
            },
            "x-experiment": {
                "description": "The experiment and its arm, such as greeting;arm=warm",
                "schema": {"type": "string"},
            },
            "x-steering-ignored": {
                "description": "Fields of the request that were accepted and have no effect on this server",
                "schema": {"type": "string"},
            },
            "warning": {
                "description": "Unknown fields of the request, on a server with --ignore-unknown-fields",
                "schema": {"type": "string"},
            },
        },
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
"""Part of the OpenAPI description of the routes that generate text."""


class Writer(Protocol):
    """Formats generated text as one route's response bodies."""

    def whole(self, plan: Plan, answers: Sequence[Chunk], usage: Usage, comparison: Comparison | None) -> BaseModel:
        """Return the body of an answer that is not streamed; ``plan`` has the sequences that are returned."""
        ...

    @property
    def ends_with_done(self) -> bool:
        """Whether a stream without errors ends with ``[DONE]``."""
        ...

    @property
    def counts_always(self) -> bool:
        """Whether every event of a stream has the usage so far."""
        ...

    def openings(self, usage: Usage | None) -> Iterable[BaseModel]:
        """Return the first events of a stream; ``usage`` is that so far, if it is wanted in every event."""
        ...

    def chunk(self, index: int, chunk: Chunk, usage: Usage | None) -> Iterable[BaseModel]:
        """Return the events for a chunk of sequence ``index``, with the usage so far if it is wanted."""
        ...

    def endings(self, usage: Usage, comparison: Comparison | None) -> Iterable[BaseModel]:
        """Return the last events of a stream, after all chunks; ``usage`` is that of the whole answer."""
        ...

    def failure(self, error: ErrorBody) -> BaseModel:
        """Return the event that ends a stream after an error."""
        ...


async def answer(
    request: Request,
    body: SamplingBody,
    left_out: LeftOut,
    plan: Plan,
    writer: Writer,
    backend: Backend,
) -> Response:
    """Answer with what the backend generates for ``plan``, as ``body`` asks; name what was ``left_out``.

    Errors before the first token are raised, not streamed.
    """
    caller: Caller = request.state.caller
    deadline: Deadline = request.state.deadline
    output = metered(plan, body, caller, backend.generate(plan.requests, plan.client))
    exposing = plan.arms.exposing
    if exposing is not None:
        output = exposing.watch(plan, output)
    invariant = "yes" if backend.model.batch_invariance.holds else "no"
    headers = {"x-steering": plan.arms.header, "x-batch-invariant": invariant} | left_out.headers
    headers |= exposing.headers if exposing is not None else {}
    if body.stream:
        # While a stream waits in the queue, only this notices that its client has disconnected.
        chunks = await unless_gone(request, started(output))
        events = _events(request, plan, backend, chunks, writer, deadline)
        return EventSourceResponse(events, headers=headers, ping=PING_SECONDS, sep=_LINE)
    drawn = await unless_gone(request, collect(output, len(plan.sequences)))
    usage = plan.usage(sum(len(each.tokens) for each in drawn))
    plan, answers = best(plan, drawn)
    comparison = await unless_gone(request, compare_arms(plan, answers, backend))
    # With alternatives for every token this takes seconds, during which other requests must be served.
    whole = await anyio.to_thread.run_sync(lambda: writer.whole(plan, answers, usage, comparison).model_dump_json())
    return Response(whole, headers=headers, media_type="application/json")


async def _events(
    request: Request,
    plan: Plan,
    backend: Backend,
    output: BatchOutput,
    writer: Writer,
    deadline: Deadline,
) -> AsyncIterator[bytes]:
    encode, generated = EventEncoder(), 0

    def so_far() -> Usage | None:
        return plan.usage(generated) if writer.counts_always else None

    try:
        for body in writer.openings(so_far()):
            yield encode(body)
        received: list[list[Chunk]] = [[] for _ in plan.sequences]
        async with aclosing(output):
            async for index, chunk in deadline.bound_each(output):
                received[index].append(chunk)
                generated += len(chunk.tokens)
                for body in writer.chunk(index, chunk, so_far()):
                    yield encode(body)
        answers = [Chunk.joined(chunks) for chunks in received]
        comparison = await deadline.bound(compare_arms(plan, answers, backend))
        for body in writer.endings(plan.usage(generated), comparison):
            yield encode(body)
        if writer.ends_with_done:
            yield DONE
    except ServerError as exc:
        # The status has been sent, so the error becomes an event, and the stream ends without [DONE].
        _, error = error_body(exc)
        note_error(request.state, error)
        yield encode(writer.failure(error))
