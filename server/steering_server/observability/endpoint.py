"""The endpoint that traces are sent to: a setting, or OpenTelemetry's variables."""

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from steering_server.errors import ConfigError

if TYPE_CHECKING:
    from steering_server.observability.tracing import Tracing

_PATH = "v1/traces"
_PROTOCOL = "http/protobuf"
_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_INSTALL = "pip install 'steering-server[tracing]'"

_log = logging.getLogger(__name__)


def open_tracing(setting: str | None) -> "Tracing | None":
    """Return what sends traces to ``setting``, or to the endpoint of OpenTelemetry's variables; None without either.

    Raises:
        ConfigError: the endpoint is no URL, OpenTelemetry's variables ask for another protocol than HTTP, or the
            setting is given and OpenTelemetry is not installed.
    """
    found = _configured(setting)
    if found is None:
        return None
    name, endpoint = found
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        if setting is not None:
            raise ConfigError(f"{name} is {endpoint!r}, but OpenTelemetry is not installed: {_INSTALL}")
        # The variables may be there for all containers of a cluster.
        _log.warning("%s is set, but OpenTelemetry is not installed, so no traces are sent: %s", name, _INSTALL)
        return None
    from steering_server.observability.tracing import Tracing

    return Tracing(endpoint)


def _configured(setting: str | None) -> tuple[str, str] | None:
    """Return the name of what configures an endpoint, and the endpoint, checked."""
    if setting is not None:
        return "otlp_traces_endpoint", _checked("otlp_traces_endpoint", setting)
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return None
    name = next((name for name in _VARIABLES if os.environ.get(name)), None)
    if name is None:
        return None
    for variable in _PROTOCOLS:
        if os.environ.get(variable, _PROTOCOL) not in ("", _PROTOCOL):
            raise ConfigError(f"{variable} is {os.environ[variable]!r}; traces are sent by {_PROTOCOL} only")
    endpoint = _checked(name, os.environ[name])
    if name == _VARIABLES[1] and not endpoint.endswith(f"/{_PATH}"):
        endpoint = f"{endpoint.rstrip('/')}/{_PATH}"
    return name, endpoint


def _checked(name: str, endpoint: str) -> str:
    """Return the URL ``endpoint``, with the usual path if it has none.

    Raises:
        ConfigError: it is no URL.
    """
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{name} is {endpoint!r}; it must be a URL such as http://localhost:4318/{_PATH}")
    return f"{endpoint.rstrip('/')}/{_PATH}" if url.path in ("", "/") else endpoint
