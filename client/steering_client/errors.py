"""All errors of the client.

SteeringClientError
├── InvalidArgument      an argument cannot be sent: a base URL, a key, an option
├── ClientClosed         the client is closed
├── MissingPackage       comparisons need a package that is not installed
├── ConnectionFailed     the server cannot be reached, or the connection broke
├── Timeout              the server did not answer in time
├── APIError             the server answered with an error
│   ├── BadRequest       400, 413, 422: the request is invalid; ``param`` names the field
│   ├── NotFound         404: no such model, profile or route
│   ├── Conflict         409: the profile does not fit the model, or cannot be changed
│   ├── PreconditionFailed  412: the profile has another version than expected
│   ├── RateLimited      429: the queue is full; ``retry_after`` says when to try again
│   └── ServerFailure    5xx
├── StreamInterrupted    a stream ended before it was complete
└── UnexpectedResponse   the answer is not one of a steering server
"""


class SteeringClientError(Exception):
    """Base class of all errors of ``steering_client``."""


class InvalidArgument(SteeringClientError):
    """An argument cannot be sent; the message names it and what is allowed."""


class ClientClosed(SteeringClientError):
    """The client is closed."""


class MissingPackage(SteeringClientError, ImportError):
    """A package that this function needs is not installed; the message says what installs it."""


class ConnectionFailed(SteeringClientError):
    """The server cannot be reached, or the connection broke."""


class Timeout(SteeringClientError):
    """The server did not answer in time."""


class APIError(SteeringClientError):
    """The server answered with an error.

    Attributes:
        status: HTTP status code.
        type: Type of the error, such as ``invalid_request_error``.
        param: Field of the request that the error is about.
        code: Code of the error, such as ``loading``.
        retry_after: Seconds after which to try again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.retry_after = retry_after


class BadRequest(APIError):
    """The request is invalid; ``param`` names the field."""


class NotFound(APIError):
    """The model, profile or route does not exist."""


class Conflict(APIError):
    """The profile does not fit the model, cannot be changed, or cannot be written."""


class PreconditionFailed(APIError):
    """The profile has another version than the caller expected."""


class RateLimited(APIError):
    """The queue of the server is full; try again after ``retry_after`` seconds."""


class ServerFailure(APIError):
    """The server failed."""


class StreamInterrupted(SteeringClientError):
    """A stream ended before it was complete."""


class UnexpectedResponse(SteeringClientError):
    """The answer is not one of a steering server, or one of an incompatible version."""
