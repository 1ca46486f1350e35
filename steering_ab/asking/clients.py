"""The HTTP client of the arms' server and of the judge's, and what its errors mean for a comparison."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from steering_ab.asking.asker import Refused, Unanswered
from steering_ab.errors import AskingError

if TYPE_CHECKING:
    from steering_client import AsyncSteeringClient

INSTALL = "pip install steering-client, or in a checkout: pip install ./client"
MAX_RETRIES = 4

_OF_THE_ITEM = {400, 413, 422}


def require_client() -> None:
    """Check that the client is installed.

    Raises:
        AskingError: it is not; the message says what installs it.
    """
    try:
        import steering_client  # noqa: F401
    except ModuleNotFoundError as exc:
        raise AskingError(
            f"asking a server needs the package steering-client ({exc}); install it with: {INSTALL}"
        ) from exc


def client_of(url: str, api_key: str | None, connections: int) -> "AsyncSteeringClient":
    """Return a client of the server at ``url``.

    Raises:
        AskingError: the client is not installed, or the URL or the key cannot be used.
    """
    require_client()
    from steering_client import AsyncSteeringClient, SteeringClientError

    try:
        return AsyncSteeringClient(url, api_key=api_key, max_retries=MAX_RETRIES, max_connections=max(1, connections))
    except SteeringClientError as exc:
        raise AskingError(str(exc)) from exc


async def require_answering(client: "AsyncSteeringClient") -> None:
    """Check that somebody answers at the client's URL. It is asked once: a wrong URL is no reason to wait.

    Raises:
        AskingError: nobody does.
    """
    from steering_client import ConnectionFailed, SteeringClientError, Timeout

    try:
        await client.health()
    except (ConnectionFailed, Timeout) as exc:
        raise AskingError(str(exc)) from exc
    except SteeringClientError:
        return  # with an error, or in another way: somebody is there


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors of the client into what they mean for a comparison.

    Raises:
        Refused: the request is invalid for this item.
        Unanswered: the request failed this time.
        AskingError: every request would fail: an arm or a route does not exist, or a key is not accepted.
    """
    from steering_client import APIError, BadRequest, InvalidArgument, NotFound, SteeringClientError

    try:
        yield
    except InvalidArgument as exc:
        raise Refused(str(exc)) from exc
    except NotFound as exc:
        raise AskingError(f"the server says: {exc}") from exc
    except BadRequest as exc:
        of_arms = (exc.param or "").split(".")[0] in ("arms", "model")
        if exc.status in _OF_THE_ITEM and not of_arms:
            raise Refused(str(exc)) from exc
        if exc.status in (401, 403) or of_arms:
            raise AskingError(f"the server says: {exc}") from exc
        raise Unanswered(str(exc)) from exc
    except APIError as exc:
        raise Unanswered(f"status {exc.status}: {exc}") from exc
    except SteeringClientError as exc:
        raise Unanswered(str(exc)) from exc


@contextmanager
def required() -> Iterator[None]:
    """Turn any error of the client into one that ends the comparison.

    Raises:
        AskingError: the client raised an error.
    """
    from steering_client import SteeringClientError

    try:
        yield
    except SteeringClientError as exc:
        raise AskingError(str(exc)) from exc
