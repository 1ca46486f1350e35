# Generated from async_stream.py by client/generate_sync.py; change that one.
"""Streamed answers."""

from collections.abc import Callable, Generator, Sequence
from typing import Generic, Self, TypeVar

from pydantic import BaseModel

from steering_client.errors import StreamInterrupted

ChunkT = TypeVar("ChunkT", bound=BaseModel)
WholeT = TypeVar("WholeT", bound=BaseModel)


class Stream(Generic[ChunkT, WholeT]):
    """The chunks of an answer, as they are generated. Closing it cancels the request."""

    def __init__(self, chunks: Generator[ChunkT, None], join: Callable[[Sequence[ChunkT]], WholeT]) -> None:
        self._chunks = chunks
        self._join = join
        self._received: list[ChunkT] = []
        self._is_closed = False
        self._is_complete = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChunkT:
        try:
            chunk = self._chunks.__next__()
        except StopIteration:
            self._is_complete = not self._is_closed
            raise
        except BaseException:
            self._is_closed = True  # from now on the generator ends at once
            raise
        self._received.append(chunk)
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def final(self) -> WholeT:
        """Read what is left of the stream and return the whole answer, as the request without streaming gets it.

        Raises:
            StreamInterrupted: The stream was closed, or failed, before it was complete.
        """
        for _ in self:
            pass
        if not self._is_complete or not self._received:
            raise StreamInterrupted("the stream was closed before it was complete")
        return self._join(self._received)

    def close(self) -> None:
        """Cancel the request, if it still runs."""
        self._is_closed = True
        self._chunks.close()
