"""The HTTP application."""

from fastapi import FastAPI

from steering_profiles import __version__
from steering_server.api import errors
from steering_server.api.head import Head
from steering_server.api.middleware import Admission, BodyLimit, RequestLog
from steering_server.api.routes import catalogue, chat, completions, probes
from steering_server.api.service import Service


def create_app(service: Service) -> FastAPI:
    """Return the application that serves ``service``. The caller starts and closes its backend."""
    app = FastAPI(
        title="steering-server",
        version=__version__,
        description="Steered and unsteered completions side by side, through an OpenAI-like API.",
    )
    app.state.service = service
    for module in (completions, chat, catalogue, probes):
        app.include_router(module.router)
    errors.install(app)
    app.add_middleware(Admission, service=service)
    app.add_middleware(BodyLimit)
    app.add_middleware(Head)
    app.add_middleware(RequestLog)
    return app
