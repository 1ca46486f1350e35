"""The server of the tests of the API, and both clients of it."""

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from steering_client import AsyncSteeringClient, AsyncStream, SteeringClient, Stream

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, url: str) -> Iterator[Call]:
    """Call a method of the sync or of the async client by name; a stream is returned as a list."""
    if request.param == "sync":
        with SteeringClient(url) as client:

            def call_sync(method: str, *args: Any, **kwargs: Any) -> Any:
                result = getattr(client, method)(*args, **kwargs)
                return list(result) if isinstance(result, Stream) else result

            yield call_sync
        return

    async def run(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async with AsyncSteeringClient(url) as client:
            result = getattr(client, method)(*args, **kwargs)
            return [chunk async for chunk in result] if isinstance(result, AsyncStream) else await result

    yield lambda method, *args, **kwargs: anyio.run(run, method, args, kwargs)
