"""When a failed request is sent again, and after how long. No I/O."""

import random

import httpx

from steering_client.errors import ConnectionFailed, InvalidArgument, RateLimited, ServerFailure, SteeringClientError

FIRST_PAUSE = 0.5
"""Seconds before the first retry, up to a quarter less at random; they double with every further one."""
LONGEST_PAUSE = 8.0
LONGEST_WISH = 60.0
"""Seconds that a server may ask to wait; if it asks for more, the caller decides."""

_UNAVAILABLE = 503
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)


def checked_retries(max_retries: int) -> int:
    """Return ``max_retries``.

    Raises:
        InvalidArgument: It is not a whole number from 0 on.
    """
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
        raise InvalidArgument(f"max_retries is {max_retries!r}; allowed: a whole number from 0 on")
    return max_retries


class Retries:
    """The retries of one request.

    A request is sent again if the server was busy (429) or not available (503), or if the connection broke. Other
    errors would come again, and after a time-out the server may still be computing.
    """

    def __init__(self, left: int, *, repeatable: bool = True) -> None:
        """``repeatable`` is whether the request may be sent again when it is not known if the server has served it."""
        self._left = left
        self._repeatable = repeatable
        self._pause = FIRST_PAUSE

    def stop(self) -> None:
        """Retry no more: a part of the answer has been given out."""
        self._left = 0

    def pause_after(self, error: SteeringClientError) -> float:
        """Return the seconds to wait before the request is sent again.

        Raises:
            SteeringClientError: ``error`` itself, if it is not to be sent again.
        """
        wished = self._wish(error)
        if self._left == 0 or wished is None or wished > LONGEST_WISH:
            raise error
        self._left -= 1
        pause = self._pause * random.uniform(0.75, 1.0)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return max(pause, wished)

    def _wish(self, error: SteeringClientError) -> float | None:
        """Return the seconds that the server asks to wait, 0 if it does not say; None if a retry would not help."""
        if isinstance(error, RateLimited) or (isinstance(error, ServerFailure) and error.status == _UNAVAILABLE):
            return error.retry_after or 0.0
        is_broken = isinstance(error, ConnectionFailed) and isinstance(error.__cause__, _BROKEN)
        return 0.0 if is_broken and self._repeatable else None
