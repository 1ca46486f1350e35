"""Exceptions of the server.

    ServerError
    ├── RequestError      the request is invalid; names the field
    │   ├── NotFound      there is no such model, profile or experiment
    │   ├── Unauthorized  the request has no valid API key
    │   ├── Forbidden     the caller may not do this
    │   ├── Conflict      the request does not suit the state that the server is in
    │   ├── PreconditionFailed  a condition of the request, such as If-Match, is false
    │   └── Overloaded    not now: the queue is full
    │       └── RateLimited   the caller has used up a limit of its API key
    ├── DeadlineExceeded  the request took too long
    ├── Unavailable       no request can be served now: the model is loading, or the server is stopping
    │   └── DefaultUnavailable  the server's default profile cannot be applied
    ├── EngineError       the engine failed on a request that it had accepted
    │   ├── EngineStopped     the engine was stopped before the request finished
    │   └── GrammarTooComplex the request's grammar exceeded a limit
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
    """There is no model, profile or experiment of this name."""


class Unauthorized(RequestError):
    """The request has no valid API key."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_api_key")


class Conflict(RequestError):
    """The request does not suit the state that the server is in, so that it may be right at another time."""


class PreconditionFailed(RequestError):
    """A condition of the request, such as ``If-Match``, is false."""


class Forbidden(RequestError):
    """The caller may not do this."""


class Overloaded(RequestError):
    """The queue is full. ``retry_after`` is the number of seconds after which a new attempt can succeed, None if none
    can."""

    def __init__(self, message: str, *, retry_after: float | None, code: str = "queue_full") -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class RateLimited(Overloaded):
    """The caller has used up a limit of its API key."""

    def __init__(self, message: str, *, retry_after: float | None) -> None:
        super().__init__(message, retry_after=retry_after, code="rate_limit_exceeded")


class BodyTooLarge(RequestError):
    """The body of a request is larger than the server allows."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="body_too_large")


class DeadlineExceeded(ServerError):
    """The request took longer than the server allows, to send or to answer."""

    code = "deadline_exceeded"


class Unavailable(ServerError):
    """No request can be served now. ``code`` is the reason, such as ``loading`` or ``draining``."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class DefaultUnavailable(Unavailable):
    """The server's default profile cannot be applied, so requests that leave the steering to it are not answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="default_profile_unavailable")


class EngineError(ServerError):
    """The engine failed on a request that it had accepted."""


class EngineStopped(EngineError):
    """The engine was stopped before the request finished."""

    code = "shutdown"

    def __init__(self) -> None:
        super().__init__("the server is shutting down and has stopped this request before it finished; send it again")


class GrammarTooComplex(EngineError):
    """The request's grammar exceeded a limit while it was followed."""

    code = "grammar_too_complex"


class ConfigError(ServerError):
    """The server cannot start with these settings."""
