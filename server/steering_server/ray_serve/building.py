"""The application for Ray Serve, from settings of the server."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from steering_server.config import ServerSettings, load_settings
from steering_server.errors import ConfigError
from steering_server.ray_serve.engine import Engine
from steering_server.ray_serve.ingress import Ingress

_OF_THE_PROXY = ("host", "port", "max_connections", "max_headers", "max_header_size", "header_timeout", "keep_alive")
_INGRESS_REQUESTS = 1000
_LAST_WORDS_SECONDS = 5.0


def application(settings: dict[str, Any]) -> Application:
    """Return the application that serves with ``settings``, those of ``steer serve`` by their names in Python.

    Its deployments are ``Ingress`` and ``Engine``. How many replicas they have, and on what, is set as for any
    application of Ray Serve, in the file that deploys it.

    Raises:
        ConfigError: a setting is invalid or one of Ray's, or there are no API keys and ``insecure`` is not set.
    """
    checked = _checked(settings)
    engine = serve.deployment(
        name="Engine",
        max_ongoing_requests=2 * checked.max_num_seqs,
        graceful_shutdown_timeout_s=checked.shutdown_grace + _LAST_WORDS_SECONDS,
        graceful_shutdown_wait_loop_s=1,
        health_check_period_s=5,
        max_queued_requests=checked.max_queue or 1,
        request_router_config=RequestRouterConfig(
            request_router_class="steering_server.ray_serve.routing.AffinityRouter"
        ),
    )(Engine)
    ingress = serve.deployment(
        name="Ingress",
        max_ongoing_requests=_INGRESS_REQUESTS,
        graceful_shutdown_timeout_s=checked.shutdown_grace + _LAST_WORDS_SECONDS,
        graceful_shutdown_wait_loop_s=1,
    )(serve.ingress()(Ingress))
    bound: Application = ingress.bind(checked, engine.bind(checked))
    return bound


def _checked(given: dict[str, Any]) -> ServerSettings:
    for name in _OF_THE_PROXY:
        if name in given:
            raise ConfigError(f"{name} is {given[name]!r}, but Ray Serve's proxies listen; use its http_options")
    settings = load_settings(**given)
    if settings.api_keys_file is None and settings.api_key_hashes is None and not settings.insecure:
        raise ConfigError(
            "there are no API keys, and Ray Serve's proxies may be reached by others: make some with steer keys add "
            "and give api_keys_file, or say insecure: true"
        )
    # One replica's metrics would be taken for those of all; Ray has its own.
    return settings.model_copy(update={"metrics": "off"})
