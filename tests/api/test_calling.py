"""An ASGI application asked inside the process."""

import asyncio
from typing import Any

import pytest

from steering_server.api.calling import call, http_scope

SCOPE = http_scope(
    method="POST", scheme="http", path="/", raw_path=b"/", query=b"", headers=[(b"Accept", b"*/*")],
    server=("localhost", 80), client=("", 0),
)  # fmt: skip


def test_messages_come_as_they_are_sent():
    ready = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["headers"] == [(b"accept", b"*/*")]
        assert (await receive())["body"] == b"asked"
        await send({"type": "http.response.start"})
        await ready.wait()  # the first message must come before this
        await send({"type": "http.response.body"})

    async def ask() -> list[str]:
        kinds = []
        async for message in call(app, SCOPE, b"asked"):
            kinds.append(message["type"])
            ready.set()
        return kinds

    assert asyncio.run(ask()) == ["http.response.start", "http.response.body"]


def test_an_application_learns_that_its_client_has_left_and_is_waited_for():
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start"})
        seen.append((await receive())["type"])
        await asyncio.sleep(0)
        seen.append("tidied up")

    async def ask() -> None:
        messages = call(app, SCOPE, b"")
        await anext(messages)
        await messages.aclose()

    asyncio.run(ask())
    assert seen == ["http.disconnect", "tidied up"]


def test_what_the_application_raises_is_raised():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    async def ask() -> None:
        async for _ in call(app, SCOPE, b""):
            pass

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(ask())
