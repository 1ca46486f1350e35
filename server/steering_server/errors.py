"""Exceptions of the server.

    ServerError
    ├── RequestError      the request is invalid; names the field
    │   ├── NotFound      there is no such model or profile
    │   └── Overloaded    the queue is full
    ├── Unavailable       no request can be served now: the model is loading, or the server is stopping
    ├── EngineError       the engine failed on a request that it had accepted
    │   └── EngineStopped the engine was stopped before the request finished
    └── ConfigError       the server cannot start with these settings

Exceptions of ``steering_profiles`` have their own hierarchy; ``api/errors`` maps both to HTTP responses.
"""


class ServerError(Exception):
    """Base class of all exceptions of ``steering_server``."""


class RequestError(ServerError):
    """The request is invalid. ``param`` is the name of the field."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotFound(RequestError):
    """There is no model or profile of this name."""


class Overloaded(RequestError):
    """The queue is full."""


class Unavailable(ServerError):
    """No request can be served now. ``code`` is the reason: ``loading`` or ``draining``."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class EngineError(ServerError):
    """The engine failed on a request that it had accepted."""


class EngineStopped(EngineError):
    """The engine was stopped before the request finished."""

    code = "shutdown"

    def __init__(self) -> None:
        super().__init__("the server is shutting down and has stopped this request before it finished; send it again")


class ConfigError(ServerError):
    """The server cannot start with these settings."""
