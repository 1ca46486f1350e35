"""Hand items from the engine's thread to queues of the event loop, with one wake-up for many items."""

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class EventLoopBridge(Generic[T]):
    """Puts items into queues of one event loop from other threads.

    Waking the loop costs more than handling an item, and a step of the engine has an item for every sequence, so items
    that arrive before the loop wakes up are delivered together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._items: list[tuple[asyncio.Queue[T], T]] = []

    def put(self, queue: asyncio.Queue[T], item: T) -> None:
        """Schedule ``item`` to be added to ``queue``.

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
