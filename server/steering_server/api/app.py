"""The HTTP application."""

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from steering_profiles import __version__
from steering_server.api import errors
from steering_server.api.dependencies import apply_field_policy
from steering_server.api.description import describe
from steering_server.api.head import Head
from steering_server.api.middleware.admission import Admission
from steering_server.api.middleware.authentication import Authentication
from steering_server.api.middleware.body_limit import BodyLimit, BodyMemory
from steering_server.api.middleware.cors import cors_options
from steering_server.api.middleware.deadlines import Deadlines
from steering_server.api.middleware.header_limit import HeaderLimit
from steering_server.api.middleware.observing import Observing
from steering_server.api.middleware.request_log import RequestLog
from steering_server.api.open_paths import open_paths
from steering_server.api.routes import (
    catalogue,
    chat,
    completions,
    metrics,
    page,
    probes,
    profiles,
    responses,
    tokenization,
)
from steering_server.api.service import Service
from steering_server.api.settings import ApiSettings


def create_app(service: Service, settings: ApiSettings | None = None) -> FastAPI:
    """Return the application that serves ``service``. The caller starts and closes its backend."""
    settings = settings or ApiSettings()
    app = FastAPI(
        title="steering-server",
        version=__version__,
        description="Steered and unsteered completions side by side, through an OpenAI-like API.",
        openapi_url="/openapi.json" if settings.docs else None,  # without it there are no docs either
    )
    app.state.service = service
    app.state.limits = settings.limits
    app.state.field_policy = settings.field_policy
    modules = (completions, chat, responses, tokenization, catalogue, profiles, probes)
    routers = [module.router for module in modules]
    if service.observability.metrics is not None:
        routers.append(metrics.router_of(service.observability.metrics))
    if service.experiments is not None:
        # Its schemas import SQLAlchemy, which a server without experiments does not need.
        from steering_server.api.routes import experiments

        routers.append(experiments.router_of(service.experiments))
    if settings.page:
        routers.append(page.router)
    for router in routers:
        app.include_router(router, dependencies=[Depends(apply_field_policy)])
    routes = [
        route for route in app.routes + [one for router in routers for one in router.routes] if isinstance(route, Route)
    ]
    describe(app)
    errors.install(app, routes)
    limits, connections = settings.limits, settings.connections
    # The last one added sees a request first.
    app.add_middleware(Admission, service=service)
    memory = BodyMemory(limits.body_memory)
    app.add_middleware(BodyLimit, max_size=limits.max_body_size, memory=memory, seconds=connections.client_timeout)
    app.add_middleware(Deadlines, seconds=limits.request_timeout)
    opened = open_paths(metrics=service.observability.access == "open", page=settings.page)
    app.add_middleware(Authentication, gate=settings.gate, open_paths=opened)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors_options(settings.cors_origins))  # a preflight carries no key
    app.add_middleware(HeaderLimit, max_headers=connections.max_headers, max_size=connections.max_header_size)
    app.add_middleware(Observing, observability=service.observability, paths=[route.path for route in routes])
    app.add_middleware(Head)
    app.add_middleware(RequestLog)
    return app
