"""A typed client of the steering server, sync and async.

with SteeringClient("http://127.0.0.1:8000") as client:
    print(client.compare("#print the string 123\\nprint(str(str(str(123", temperature=0, max_tokens=1))
"""

from steering_client.async_client import AsyncSteeringClient
from steering_client.comparison import Comparison
from steering_client.errors import (
    APIError,
    BadRequest,
    ClientClosed,
    ConnectionFailed,
    InvalidArgument,
    NotFound,
    RateLimited,
    ServerFailure,
    SteeringClientError,
    StreamInterrupted,
    Timeout,
    UnexpectedResponse,
)
from steering_client.sync_client import SteeringClient

__all__ = [
    "APIError",
    "AsyncSteeringClient",
    "BadRequest",
    "ClientClosed",
    "Comparison",
    "ConnectionFailed",
    "InvalidArgument",
    "NotFound",
    "RateLimited",
    "ServerFailure",
    "SteeringClient",
    "SteeringClientError",
    "StreamInterrupted",
    "Timeout",
    "UnexpectedResponse",
]
