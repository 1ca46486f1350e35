"""From the engine's thread to the event loop: whatever has come since the last wake-up goes over in one."""

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Puts items into queues of one event loop, from other threads.

    Waking the loop costs more than what it is woken for, and a step of the engine has an item for every row.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._items: list[tuple[asyncio.Queue[T], T]] = []

    def put(self, queue: asyncio.Queue[T], item: T) -> None:
        """Add ``item`` to ``queue`` soon.

        Raises:
            RuntimeError: the loop is closed.
        """
        with self._lock:
            self._items.append((queue, item))
            is_first = len(self._items) == 1
        if is_first:
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            items, self._items = self._items, []
        for queue, item in items:
            queue.put_nowait(item)
