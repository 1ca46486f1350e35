"""Every error that the server raises of its own, as one tree.

    ServerError
    ├── RequestError      what the client asked for cannot be done as asked; names the field at fault
    │   ├── NotFound      no such model or profile
    │   └── Overloaded    the queue is full; try again later
    ├── Unavailable       no request can be served now: the model is being loaded, or the server is stopping
    ├── EngineError       the engine could not carry out a request it had accepted
    │   └── EngineStopped it was stopped before it was done with one
    └── ConfigError       the server cannot start with these settings

Errors of ``steering_profiles`` keep their own tree; the API maps both to HTTP in one place.
"""


class ServerError(Exception):
    """Base of all errors raised by ``steering_server``."""


class RequestError(ServerError):
    """A request that cannot be served as asked. ``param`` is the field at fault."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotFound(RequestError):
    """A model or profile that this server does not have."""


class Overloaded(RequestError):
    """The server has as much queued as it allows."""


class Unavailable(ServerError):
    """Nothing is served now. ``code`` says why: ``loading`` or ``draining``."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class EngineError(ServerError):
    """The engine failed on a request that it had accepted."""


class EngineStopped(EngineError):
    """The engine was stopped before it was done with a request: nothing is wrong with either."""

    code = "shutdown"

    def __init__(self) -> None:
        super().__init__("the server is shutting down and has stopped this request before it was done; send it again")


class ConfigError(ServerError):
    """Settings that the server cannot start with."""
