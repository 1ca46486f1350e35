"""``/metrics``, for Prometheus."""

import anyio
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from steering_server.api.open_paths import METRICS
from steering_server.observability.metrics import CONTENT_TYPE, Metrics


def router_of(metrics: Metrics) -> APIRouter:
    """Return the route that shows ``metrics``."""
    router = APIRouter()

    @router.get(METRICS, response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Return the server's metrics in Prometheus's text format, also while the model is loaded."""
        # Formatting takes milliseconds, during which other requests must be served.
        return Response(await anyio.to_thread.run_sync(metrics.exposition), media_type=CONTENT_TYPE)

    return router
