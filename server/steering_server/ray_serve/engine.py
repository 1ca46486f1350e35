"""A replica of the engine: the whole application, asked by the ingress instead of through a port."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from ray import serve
from starlette.types import Message

from steering_server.access.gate import Gate
from steering_server.access.keyring import Keyring
from steering_server.api.app import create_app
from steering_server.api.calling import call
from steering_server.api.service import Service
from steering_server.api.watching import watch_profiles
from steering_server.cli.experiments import open_experiments
from steering_server.cli.opening import api_settings, open_backend
from steering_server.config import ServerSettings
from steering_server.errors import EngineError
from steering_server.logs import configure_logs
from steering_server.observability.endpoint import open_tracing
from steering_server.observability.observability import Observability
from steering_server.ray_serve.forwarding import Forwarded

REPLICA = b"x-replica"
"""Header of answers: the replica that gave it."""


class Engine:
    """One replica: a model in an engine, and the API on it. Ray Serve calls its methods."""

    async def __init__(self, settings: ServerSettings) -> None:  # type: ignore[misc]  # Ray awaits it
        """Load the model; Ray sends requests afterwards.

        Raises:
            SteeringError: the model or a profile cannot be loaded.
            ConfigError: the engine cannot run the model, or the API keys cannot be read.
        """
        configure_logs(settings.log_level)
        self._name = serve.get_replica_context().replica_tag.encode()
        # Experiments need a database that all replicas share.
        self._experiments = None if settings.database_url is None else open_experiments(settings)
        self._observability = Observability(settings.metrics, open_tracing(settings.otlp_traces_endpoint))
        service = Service(observability=self._observability, experiments=self._experiments)
        gate = Gate(Keyring.open(settings.api_keys_file, settings.api_key_hashes), admin_without_key=False)
        self._app = create_app(service, api_settings(settings, gate))
        self._backend = await anyio.to_thread.run_sync(open_backend, settings)
        await self._backend.start()
        if self._experiments is not None:
            await anyio.to_thread.run_sync(self._experiments.open, self._backend.model.name)
        service.open(self._backend)
        never = asyncio.Event()
        self._watching = asyncio.create_task(watch_profiles(self._backend.profiles, settings.profiles_poll, never))

    async def respond(self, request: Forwarded) -> AsyncGenerator[list[Message], None]:
        """Yield the messages of the answer to ``request``, those together that are there together.

        If Ray closes the generator, because the client has left, the request is cancelled.
        """
        messages = call(self._app, request.scope(), request.body)
        try:
            async for message in messages:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (REPLICA, self._name)]
                yield [message]
        finally:
            await messages.aclose()

    async def whole(self, request: Forwarded) -> list[Message]:
        """Return all messages of the answer to ``request``."""
        return [message async for batch in self.respond(request) for message in batch]

    async def reload_profiles(self) -> None:
        """Read the folder of profiles again, which another replica has changed."""
        await anyio.to_thread.run_sync(self._backend.profiles.reload)

    def check_health(self) -> None:
        """Do nothing if the engine can run requests; Ray replaces a replica whose check fails.

        Raises:
            EngineError: it cannot.
        """
        reason = self._backend.failure()
        if reason is not None:
            raise EngineError(reason)

    async def __del__(self) -> None:
        """Close the engine. Ray calls this after the last request, or kills the replica after its time for shutdown."""
        backend: Any = getattr(self, "_backend", None)
        if backend is None:
            return
        self._watching.cancel()
        await backend.close()
        if self._experiments is not None:
            await anyio.to_thread.run_sync(self._experiments.close)
        await self._observability.close()
