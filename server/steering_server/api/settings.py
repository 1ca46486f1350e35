"""Settings of the HTTP application and of its connections."""

from dataclasses import dataclass, field

from steering_server.access.gate import Gate
from steering_server.config import FieldPolicy
from steering_server.limits import ConnectionLimits, RequestLimits


@dataclass(frozen=True)
class ApiSettings:
    """Settings of the API. By default as on a loopback address: nobody needs a key."""

    gate: Gate = field(default_factory=Gate)
    docs: bool = True
    """Whether ``/docs``, ``/redoc`` and ``/openapi.json`` are served."""
    page: bool = True
    """Whether the page is served at ``/``."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages whose scripts may use the API; ``*`` for all."""
    limits: RequestLimits = field(default_factory=RequestLimits)
    field_policy: FieldPolicy = "standard"
    """What happens to fields of requests that are unknown or have no effect."""
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
