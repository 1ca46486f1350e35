"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from steering_profiles import __version__
from steering_server.api import errors
from steering_server.api.middleware import BodyLimit, RequestLog
from steering_server.api.routes import catalogue, chat, completions
from steering_server.api.state import AppState
from steering_server.backends.base import Backend


def create_app(backend: Backend) -> FastAPI:
    """Make the application that serves ``backend``; it starts and closes the backend with its own life."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        yield
        await backend.close()

    app = FastAPI(
        title="steering-server",
        version=__version__,
        description="Steered and unsteered completions side by side, through an OpenAI-like API.",
        lifespan=lifespan,
    )
    app.state.steering = AppState(backend)
    for module in (completions, chat, catalogue):
        app.include_router(module.router)
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestLog)
    return app
