"""Arms of any server with OpenAI's API: an arm is the name of a model, and each is asked by a request of its own."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from steering_ab.asking.asker import AskSettings, Facts, Refused, Unanswered
from steering_ab.asking.clients import explained
from steering_ab.asking.steering_server import chosen, continuation_logprob
from steering_ab.datasets.item import Item
from steering_ab.errors import AskingError
from steering_ab.graders.grader import Answer

if TYPE_CHECKING:
    from steering_client import AsyncSteeringClient


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _Usage(_Foreign):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Logprobs(_Foreign):
    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[float | None, ...]
    top_logprobs: Any = None
    text_offset: tuple[int, ...]


class _Message(_Foreign):
    content: str | None = None


class _Choice(_Foreign):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class Completion(_Foreign):
    """The part of an answer that every server with OpenAI's API gives: of a completion, or of a chat."""

    choices: tuple[_Choice, ...]
    usage: _Usage | None = None


class _NamedModel(_Foreign):
    id: str


class _Models(_Foreign):
    data: tuple[_NamedModel, ...]


@dataclass
class OpenAIServer:
    """The server behind ``client``, which has OpenAI's API."""

    client: "AsyncSteeringClient"
    where: str
    settings: AskSettings
    together: bool = field(default=False, init=False)

    async def facts(self, arms: Mapping[str, str]) -> Facts:
        """Check that the server has the models, if it lists its models."""
        from steering_client import SteeringClientError

        try:
            known = await model_names(self.client)
        except SteeringClientError as exc:
            raise AskingError(f"{self.where}: {exc}") from exc
        for name in arms.values() if known else ():
            if name not in known:
                listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
                raise AskingError(
                    f"{self.where} is no steering server, so an arm is the name of one of its models; it has no "
                    f"{name!r}, but {listed}"
                )
        return Facts(
            ", ".join(dict.fromkeys(arms.values())),
            self.where,
            {label: {"model": name} for label, name in arms.items()},
            {},
        )

    async def answer(self, item: Item, arms: Mapping[str, str], repeat: int) -> Mapping[str, Answer]:
        """Answer an item under the arms, one after the other, with the same seed."""
        return {label: await self._one(item, model, repeat) for label, model in arms.items()}

    async def _one(self, item: Item, model: str, repeat: int) -> Answer:
        settings = self.settings
        messages = settings.messages_of(item)
        asked: dict[str, Any] = {"prompt": item.prompt} if messages is None else {"messages": messages}
        asked |= {
            "model": model,
            "temperature": settings.temperature,
            "max_tokens": settings.tokens_of(item),
            "seed": settings.seed_of(item, repeat),
        }
        path = "/v1/completions" if messages is None else "/v1/chat/completions"
        started = time.perf_counter()
        with explained():
            completion = await self.client.post(path, asked, Completion)
        seconds = time.perf_counter() - started
        if not completion.choices:
            raise Unanswered("the server gave no choice")
        choice, usage = completion.choices[0], completion.usage or _Usage()
        text = choice.text if choice.text is not None else (choice.message.content if choice.message else None)
        return Answer(text or "", choice.finish_reason, usage.prompt_tokens, usage.completion_tokens, seconds)

    async def score(self, item: Item, arms: Mapping[str, str]) -> Mapping[str, Answer]:
        """Return the log-probabilities of the item's choices, for which prompts are echoed."""
        scored = {}
        for label, model in arms.items():
            body = {
                "model": model,
                "prompt": [(item.prompt or "") + choice for choice in item.choices],
                "max_tokens": 0,
                "echo": True,
                "logprobs": 1,
                "temperature": 0,
            }
            started = time.perf_counter()
            with explained():
                completion = await self.client.post("/v1/completions", body, Completion)
            seconds = time.perf_counter() - started
            choices = sorted(completion.choices, key=lambda choice: choice.index)
            if len(choices) != len(item.choices):
                raise Unanswered(f"the server gave {len(choices)} choices for {len(item.choices)} prompts")
            logprobs = tuple(continuation_logprob(_read(each.logprobs), len(item.prompt or "")) for each in choices)
            scored[label] = chosen(item, logprobs, seconds)
        return scored


async def model_names(client: "AsyncSteeringClient") -> tuple[str, ...]:
    """Return the names of a server's models; none if it does not list them.

    Raises:
        SteeringClientError: the server cannot be reached, or does not accept the key.
    """
    from steering_client import NotFound, UnexpectedResponse

    try:
        return tuple(model.id for model in (await client.get("/v1/models", _Models)).data)
    except (NotFound, UnexpectedResponse):
        return ()


def _read(logprobs: Any) -> Any:
    if logprobs is None:
        return None
    try:
        return _Logprobs.model_validate(logprobs)
    except ValueError as exc:
        raise Refused("the server gives no log-probabilities with text offsets, which multiple choice needs") from exc
