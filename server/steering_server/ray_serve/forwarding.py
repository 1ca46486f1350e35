"""A request on its way from the ingress to a replica of the engine. No Ray in here."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import Scope

from steering_server.api.calling import http_scope
from steering_server.ray_serve.affinity import affinity_of

GENERATING = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses"})
"""Routes that generate text."""
_PROFILES = "/v1/profiles/"
_REPEATABLE = GENERATING | {"/tokenize", "/detokenize"}


@dataclass(frozen=True)
class Forwarded:
    """A request as a replica gets it."""

    method: str
    scheme: str
    path: str
    raw_path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    server: tuple[str, int | None]
    client: tuple[str, int]
    body: bytes
    affinity: str | None
    """What requests have in common that should meet in one replica; None if any will do."""

    @classmethod
    def of(cls, scope: Scope, body: bytes) -> "Forwarded":
        """Return the request with the scope and body of an ASGI application."""
        path: str = scope["path"]
        return cls(
            method=scope["method"],
            scheme=scope.get("scheme", "http"),
            path=path,
            raw_path=scope.get("raw_path") or path.encode(),
            query=scope.get("query_string", b""),
            headers=tuple(_pairs(scope["headers"])),
            server=tuple(scope.get("server") or ("", None)),
            client=tuple(scope.get("client") or ("", 0)),
            body=body,
            affinity=affinity_of(body) if path in GENERATING else None,
        )

    @property
    def may_repeat(self) -> bool:
        """Whether another replica may do it again if nothing of the first one's answer has been passed on."""
        return self.method in ("GET", "HEAD", "OPTIONS") or self.path in _REPEATABLE

    @property
    def changes_profile(self) -> bool:
        """Whether it adds, replaces or deletes a profile."""
        return self.method in ("PUT", "DELETE") and self.path.startswith(_PROFILES)

    @property
    def toggles_profile(self) -> bool:
        """Whether it enables or disables a profile."""
        return self.method == "POST" and self.path.startswith(_PROFILES) and self.path.endswith(("/enable", "/disable"))

    def scope(self) -> Scope:
        """Return the scope of the request for the application of a replica."""
        return http_scope(
            method=self.method,
            scheme=self.scheme,
            path=self.path,
            raw_path=self.raw_path,
            query=self.query,
            headers=list(self.headers),
            server=self.server,
            client=self.client,
        )


def _pairs(headers: Iterable[Iterable[bytes]]) -> Iterable[tuple[bytes, bytes]]:
    for name, value in headers:
        yield bytes(name), bytes(value)
