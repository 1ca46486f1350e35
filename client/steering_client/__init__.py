"""A typed client of the steering server, sync and async.

with SteeringClient("http://127.0.0.1:8000") as client:
    print(client.compare("#print the string 123\\nprint(str(str(str(123", temperature=0, max_tokens=1))
"""

from steering_client.async_client import AsyncSteeringClient
from steering_client.async_stream import AsyncStream
from steering_client.comparing import ab, ab_async
from steering_client.comparison import Comparison
from steering_client.errors import (
    APIError,
    BadRequest,
    ClientClosed,
    Conflict,
    ConnectionFailed,
    InvalidArgument,
    MissingPackage,
    NotFound,
    PreconditionFailed,
    RateLimited,
    ServerFailure,
    SteeringClientError,
    StreamInterrupted,
    Timeout,
    UnexpectedResponse,
)
from steering_client.sync_client import SteeringClient
from steering_client.sync_stream import Stream

__all__ = [
    "APIError",
    "AsyncSteeringClient",
    "AsyncStream",
    "BadRequest",
    "ClientClosed",
    "Comparison",
    "Conflict",
    "ConnectionFailed",
    "InvalidArgument",
    "MissingPackage",
    "NotFound",
    "PreconditionFailed",
    "RateLimited",
    "ServerFailure",
    "SteeringClient",
    "SteeringClientError",
    "Stream",
    "StreamInterrupted",
    "Timeout",
    "UnexpectedResponse",
    "ab",
    "ab_async",
]
