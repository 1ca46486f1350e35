"""The time by which a request must be answered."""

import math
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from steering_server.errors import DeadlineExceeded

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """A time of the event loop's clock, some seconds after the request came."""

    at: float = math.inf
    seconds: float = math.inf

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline ``seconds`` from now."""
        return cls(anyio.current_time() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds until then."""
        return self.at - anyio.current_time()

    @property
    def exceeded(self) -> DeadlineExceeded:
        """The error of a request that is not answered in time."""
        return DeadlineExceeded(f"the request was not finished within the {self.seconds:g} s that the server allows")

    async def bound(self, work: Awaitable[T]) -> T:
        """Await ``work`` and return its result.

        Raises:
            DeadlineExceeded: the deadline has come first; ``work`` is cancelled.
        """
        with anyio.CancelScope(deadline=self.at):
            return await work
        raise self.exceeded

    async def bound_each(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield ``items`` until the deadline.

        Raises:
            DeadlineExceeded: it has come before their end.
        """
        end = object()
        while (item := await self.bound(anext(items, end))) is not end:
            yield item  # type: ignore[misc]  # it is not the end
