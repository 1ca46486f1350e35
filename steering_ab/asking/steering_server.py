"""Arms of this project's server: all of an item's arms are one request."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steering_ab.asking.asker import AskSettings, Facts, Refused, Unanswered
from steering_ab.asking.clients import explained, required
from steering_ab.datasets.item import Item
from steering_ab.errors import AskingError
from steering_ab.graders.grader import Answer

if TYPE_CHECKING:
    from steering_client import AsyncSteeringClient
    from steering_client.types import CompletionLogprobs, Profile

_STREAM = {"continuous_usage_stats": True}


@dataclass
class SteeringServer:
    """The server behind ``client``, which applies profiles."""

    client: "AsyncSteeringClient"
    where: str
    settings: AskSettings
    together: bool = field(default=True, init=False)

    async def facts(self, arms: Mapping[str, str]) -> Facts:
        """Check that the server has the profiles of the arms, and return their hashes and the model."""
        from steering_profiles import __version__
        from steering_profiles.errors import LabelError
        from steering_profiles.labels import parse_label

        with required():
            profiles = {profile.name: profile for profile in await self.client.profiles()}
            models = await self.client.models()
        described: dict[str, Any] = {}
        for label, name in arms.items():
            try:
                parsed = parse_label(name)
            except LabelError as exc:
                raise AskingError(f"arm {name!r}: {exc}") from exc
            for profile in parsed.names:
                _require(profiles, profile)
            described[label] = {
                "profiles": {profile: profiles[profile].content_hash for profile in parsed.names},
                "strength": parsed.strength if parsed.names else 0,
            }
        return Facts(models[0].id if models else "", self.where, described, {"steering-server": __version__})

    async def answer(self, item: Item, arms: Mapping[str, str], repeat: int) -> Mapping[str, Answer]:
        """Answer an item under all arms in one batch, and note when each arm had its first and its last token."""
        settings = self.settings
        options = {
            "arms": _requested(arms),
            "temperature": settings.temperature,
            "max_tokens": settings.tokens_of(item),
            "seed": settings.seed_of(item, repeat),
            "stream_options": _STREAM,
        }
        messages = settings.messages_of(item)
        labels = list(arms)
        parts = [_Part() for _ in labels]
        started, generated, prompt_tokens = time.perf_counter(), 0, None
        with explained():
            stream: Any = (
                self.client.stream(item.prompt or "", **options)  # type: ignore[arg-type]
                if messages is None
                else self.client.stream_chat(messages, **options)  # type: ignore[arg-type]
            )
            async with stream:
                async for chunk in stream:
                    now = time.perf_counter() - started
                    total = chunk.usage.completion_tokens if chunk.usage else generated
                    for choice in chunk.choices:
                        parts[choice.index].add(_text_of(choice), choice.finish_reason, total - generated, now)
                    generated = max(generated, total)
                    prompt_tokens = chunk.usage.prompt_tokens if chunk.usage else prompt_tokens
        unfinished = [label for label, part in zip(labels, parts, strict=True) if part.finish_reason is None]
        if unfinished:
            raise Unanswered(f"the answer of {', '.join(unfinished)} was not finished")
        return {label: part.answer(prompt_tokens) for label, part in zip(labels, parts, strict=True)}

    async def score(self, item: Item, arms: Mapping[str, str]) -> Mapping[str, Answer]:
        """Return the log-probabilities of the item's choices under all arms, by one request."""
        prompt = item.prompt or ""
        labels = list(arms)
        started = time.perf_counter()
        with explained():
            completion = await self.client.complete(
                [prompt + choice for choice in item.choices],
                arms=_requested(arms),
                max_tokens=0,
                echo=True,
                logprobs=0,
                temperature=0.0,
            )
        seconds = time.perf_counter() - started
        choices = sorted(completion.choices, key=lambda choice: choice.index)
        if len(choices) != len(labels) * len(item.choices):
            raise Unanswered(f"the server gave {len(choices)} choices for {len(labels)} arms x {len(item.choices)}")
        scored = {}
        for position, label in enumerate(labels):
            found = choices[position * len(item.choices) : (position + 1) * len(item.choices)]
            logprobs = tuple(continuation_logprob(each.logprobs, len(prompt)) for each in found)
            scored[label] = chosen(item, logprobs, seconds)
        return scored


@dataclass
class _Part:
    """What has come of one arm's answer."""

    text: str = ""
    finish_reason: str | None = None
    tokens: int = 0
    first: float | None = None
    last: float = 0.0

    def add(self, text: str, finish_reason: str | None, tokens: int, now: float) -> None:
        self.text += text
        self.finish_reason = finish_reason or self.finish_reason
        self.tokens += tokens
        if self.first is None and (text or finish_reason):
            self.first = now
        self.last = now

    def answer(self, prompt_tokens: int | None) -> Answer:
        return Answer(self.text, self.finish_reason, prompt_tokens, self.tokens, self.last, self.first)


def chosen(item: Item, logprobs: tuple[float, ...], seconds: float) -> Answer:
    """Return the answer of an arm to a multiple choice: the text of its likeliest choice."""
    text = item.choices[logprobs.index(max(logprobs))]
    return Answer(text, seconds=seconds, choice_logprobs=logprobs)


def continuation_logprob(logprobs: "CompletionLogprobs | None", start: int) -> float:
    """Return the log-probability of the text from position ``start`` on.

    A token across that position belongs to it, since without it the continuation would not be whole.

    Raises:
        Refused: the answer has no log-probabilities, or none of that text.
    """
    if logprobs is None:
        raise Refused("the server gives no log-probabilities of an echoed prompt, which multiple choice needs")
    offsets = logprobs.text_offset
    ends = (*offsets[1:], None)
    of_text = [
        value
        for value, end in zip(logprobs.token_logprobs, ends, strict=True)
        if (end is None or end > start) and value is not None
    ]
    if not of_text:
        raise Refused("the choice has no token of its own after the prompt")
    return float(sum(of_text))


def _requested(arms: Mapping[str, str]) -> list[str | dict[str, Any]]:
    """Return the arms as the request names them; those that would have the same label are named."""
    from steering_profiles.labels import parse_label

    parsed = {label: parse_label(name) for label, name in arms.items()}
    if len({str(each) for each in parsed.values()}) == len(parsed):
        return [str(each) for each in parsed.values()]
    return [
        {
            "profile": list(each.names) or "baseline",
            "strength": each.strength if each.names else 1.0,
            "name": f"arm-{n}",
        }
        for n, each in enumerate(parsed.values(), start=1)
    ]


def _require(profiles: "Mapping[str, Profile]", name: str) -> None:
    """Check that the server can apply a profile.

    Raises:
        AskingError: it has none of this name, or cannot apply it.
    """
    profile = profiles.get(name)
    if profile is None:
        known = ", ".join(name for name, each in profiles.items() if each.enabled and each.usable) or "none"
        raise AskingError(f"there is no profile {name!r}; there are: baseline, {known}")
    if not profile.enabled:
        raise AskingError(f"profile {name!r} is disabled")
    if not profile.usable:
        raise AskingError(f"profile {name!r} does not fit the model: {profile.reason}")


def _text_of(choice: Any) -> str:
    delta = getattr(choice, "delta", None)
    return (delta.content or "") if delta is not None else choice.text
