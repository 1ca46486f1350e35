"""Which kind of server a URL belongs to."""

from typing import TYPE_CHECKING

from steering_ab.asking.asker import AskSettings
from steering_ab.asking.clients import require_answering
from steering_ab.asking.openai_server import OpenAIServer
from steering_ab.asking.steering_server import SteeringServer
from steering_ab.errors import AskingError

if TYPE_CHECKING:
    from steering_client import AsyncSteeringClient


async def asker_of(client: "AsyncSteeringClient", where: str, settings: AskSettings) -> SteeringServer | OpenAIServer:
    """Return what asks the server behind ``client``: this project's, if it lists profiles, or another one.

    Raises:
        AskingError: it cannot be reached, or does not accept the key.
    """
    from steering_client import BadRequest, NotFound, SteeringClientError, UnexpectedResponse

    await require_answering(client)
    try:
        await client.profiles()
    except (NotFound, UnexpectedResponse):
        return OpenAIServer(client, where, settings)
    except BadRequest as exc:
        if exc.status in (401, 403):
            raise AskingError(f"{where} does not accept the API key: {exc}") from exc
        return OpenAIServer(client, where, settings)
    except SteeringClientError as exc:
        raise AskingError(str(exc)) from exc
    return SteeringServer(client, where, settings)
