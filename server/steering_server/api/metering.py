"""Use of the limits of an API key by a request."""

from contextlib import aclosing

from steering_server.access.callers import Caller
from steering_server.api.plan import Plan
from steering_server.api.schemas.requests import SamplingBody
from steering_server.errors import Overloaded
from steering_server.generation.requests import BatchOutput


async def metered(plan: Plan, body: SamplingBody, caller: Caller, output: BatchOutput) -> BatchOutput:
    """Yield ``output``, which is generated for ``plan``, and charge it to the caller's key.

    Raises:
        RateLimited: the key has no tokens or sequences left for this request; nothing is generated.
    """
    if caller.meter is None:
        async with aclosing(output):
            async for each in output:
                yield each
        return
    most = None if body.token_limit is None else len(plan.sequences) * plan.sampling.max_tokens
    with caller.meter.reserve(len(plan.sequences), plan.prompt_tokens, most) as reservation:
        async with aclosing(output):
            try:
                async for index, chunk in output:
                    reservation.completion_tokens += len(chunk.tokens)
                    yield index, chunk
            except Overloaded:
                reservation.is_void = True
                raise
