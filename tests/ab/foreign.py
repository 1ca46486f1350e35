"""A small server with OpenAI's API that is no steering server: its models are rules."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Rule = Callable[[str], str]
"""Returns the text that a model answers a prompt, or the last message, with."""


class Foreign:
    """The server: its models, and the requests that it was sent."""

    def __init__(self, models: dict[str, Rule]) -> None:
        self.models = models
        self.asked: list[dict[str, Any]] = []
        self.failing = 0
        """Number of requests that are answered with status 500 from now on."""
        self.app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/completions", self._complete, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _complete(self, request: Request) -> Response:
        body = await self._read(request)
        if body is None:
            return JSONResponse({"error": {"message": "broken"}}, 500)
        if body.get("echo"):
            return JSONResponse({"choices": [self._echo(body["model"], *each) for each in enumerate(body["prompt"])]})
        text = self.models[body["model"]](body["prompt"])
        return JSONResponse(
            {"choices": [{"index": 0, "text": text, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
        )

    def _echo(self, model: str, index: int, text: str) -> dict[str, Any]:
        """Each character is a token; the model's own are likely."""
        likely = self.models[model]("")
        logprobs = [None, *(-0.1 if char in likely else -5.0 for char in text[1:])]
        offsets = list(range(len(text)))
        return {"index": index, "text": text, "logprobs": {"token_logprobs": logprobs, "text_offset": offsets}}

    async def _chat(self, request: Request) -> Response:
        body = await self._read(request)
        if body is None:
            return JSONResponse({"error": {"message": "broken"}}, 500)
        text = self.models[body["model"]](body["messages"][-1]["content"])
        return JSONResponse({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})

    async def _read(self, request: Request) -> dict[str, Any] | None:
        body: dict[str, Any] = json.loads(await request.body())
        self.asked.append(body)
        if self.failing:
            self.failing -= 1
            return None
        return body


@contextmanager
def serving_foreign(foreign: Foreign) -> Iterator[str]:
    """Serve on a loopback port and yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(foreign.app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
