"""The judge: a model of any server with OpenAI's API."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from steering_ab.asking.asker import Unanswered
from steering_ab.asking.clients import client_of, explained
from steering_ab.asking.openai_server import Completion
from steering_ab.errors import AskingError
from steering_ab.graders.judge import JudgeModel

if TYPE_CHECKING:
    from steering_client import AsyncSteeringClient

MAX_TOKENS = 512
"""Maximum number of tokens of a verdict, with what the judge says before it."""
_GIVE_UP_AFTER = 5


class JudgeClient:
    """Asks a judge. After several failures in a row it asks no more, and says why."""

    def __init__(self, client: "AsyncSteeringClient", model: str) -> None:
        self._client = client
        self._model = model
        self._failures = 0
        self._last = ""

    async def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the judge's reply.

        Raises:
            ABError: it does not reply.
        """
        if self._failures >= _GIVE_UP_AFTER:
            raise Unanswered(f"the judge was not asked, since it failed {self._failures} times: {self._last}")
        body = {
            "model": self._model,
            "messages": [dict(message) for message in messages],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        try:
            with explained():
                completion = await self._client.post("/v1/chat/completions", body, Completion)
        except Exception as exc:
            self._failures, self._last = self._failures + 1, str(exc)
            raise
        self._failures = 0
        choice = completion.choices[0] if completion.choices else None
        return (choice.message.content if choice and choice.message else None) or ""


def judge_of(url: str, model: str, api_key: str | None, connections: int) -> tuple[JudgeModel, "AsyncSteeringClient"]:
    """Return the judge ``model`` of the server at ``url``, and the client to close afterwards.

    Raises:
        AskingError: the URL or the key cannot be used.
    """
    if not model.strip():
        raise AskingError("the judge's model has no name")
    client = client_of(url, api_key, connections)
    return JudgeModel(f"{model} at {url}", JudgeClient(client, model).ask), client
