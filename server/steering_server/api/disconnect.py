"""Cancellation of requests whose client has disconnected."""

from collections.abc import Awaitable
from typing import TypeVar

import anyio
from fastapi import Request

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection before the answer was ready."""


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Await ``work`` and return its result; cancel it when the client disconnects.

    Raises:
        ClientGone: the client disconnected first.
    """
    results: list[T] = []
    failures: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            results.append(await work)
        except Exception as exc:  # raised outside of the task group, which would wrap it
            failures.append(exc)
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    if not results:
        raise ClientGone
    return results[0]
