"""Every error that the client raises, as one tree.

SteeringClientError
├── InvalidArgument      what the client was given cannot be sent: a base URL, a key, an option
├── ClientClosed         the client was closed before the request
├── ConnectionFailed     the server cannot be reached
├── Timeout              no answer in time
├── APIError             the server answered with an error
│   ├── BadRequest       400, 413, 422: the request is wrong; ``param`` names the field
│   ├── NotFound         404: no such model, profile or route
│   ├── RateLimited      429: too much is queued; ``retry_after`` says when to try again
│   └── ServerFailure    5xx
├── StreamInterrupted    a stream ended before the server said that it was done
└── UnexpectedResponse   the answer is not what a steering server answers
"""


class SteeringClientError(Exception):
    """Base of all errors raised by ``steering_client``."""


class InvalidArgument(SteeringClientError):
    """What the client was given cannot be sent: the message names it and says what is expected."""


class ClientClosed(SteeringClientError):
    """The client was closed before the request."""


class ConnectionFailed(SteeringClientError):
    """The server cannot be reached, or the connection broke."""


class Timeout(SteeringClientError):
    """The server did not answer in time."""


class APIError(SteeringClientError):
    """The server answered with an error."""

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
    """The request is wrong; ``param`` names the field."""


class NotFound(APIError):
    """There is no such model, profile or route."""


class RateLimited(APIError):
    """Too much is queued at the server; try again after ``retry_after`` seconds."""


class ServerFailure(APIError):
    """The server failed."""


class StreamInterrupted(SteeringClientError):
    """A stream ended before the server said that it was done."""


class UnexpectedResponse(SteeringClientError):
    """The answer is not what a steering server answers: another server, or another version."""
