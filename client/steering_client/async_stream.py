"""Streamed answers."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Generic, Self, TypeVar

from pydantic import BaseModel

from steering_client.errors import StreamInterrupted

ChunkT = TypeVar("ChunkT", bound=BaseModel)
WholeT = TypeVar("WholeT", bound=BaseModel)


class AsyncStream(Generic[ChunkT, WholeT]):
    """The chunks of an answer, as they are generated. Closing it cancels the request."""

    def __init__(self, chunks: AsyncGenerator[ChunkT, None], join: Callable[[Sequence[ChunkT]], WholeT]) -> None:
        self._chunks = chunks
        self._join = join
        self._received: list[ChunkT] = []
        self._is_closed = False
        self._is_complete = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChunkT:
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._is_complete = not self._is_closed
            raise
        except BaseException:
            self._is_closed = True  # from now on the generator ends at once
            raise
        self._received.append(chunk)
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def final(self) -> WholeT:
        """Read what is left of the stream and return the whole answer, as the request without streaming gets it.

        Raises:
            StreamInterrupted: The stream was closed, or failed, before it was complete.
        """
        async for _ in self:
            pass
        if not self._is_complete or not self._received:
            raise StreamInterrupted("the stream was closed before it was complete")
        return self._join(self._received)

    async def aclose(self) -> None:
        """Cancel the request, if it still runs."""
        self._is_closed = True
        await self._chunks.aclose()
