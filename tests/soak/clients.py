"""Clients of every kind, good and bad, who ask a server for as long as they are told."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

PATIENCE_SECONDS = 240
"""Time after which a request without an end counts as stuck; a busy machine may take minutes."""

_REFUSALS = {429: {"queue_full"}, 503: {"draining", "loading", "shutdown"}}
"""Statuses that refuse a valid request, and the codes that say why."""


@dataclass
class Outcomes:
    """Ends of all requests."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    """Requests that ended in neither an answer nor a clear error."""


class Clients:
    """Many clients of one server, each of which sends one request after another."""

    def __init__(self, url: str, model: str, profile: str, seed: int) -> None:
        self._url = url
        self._model = model
        self._profile = profile
        self._random = random.Random(seed)
        self.outcomes = Outcomes()

    async def run(self, clients: int, seconds: float) -> None:
        """Let ``clients`` ask until ``seconds`` are over and their last requests have ended."""
        until = time.monotonic() + seconds
        async with httpx.AsyncClient(base_url=self._url, timeout=PATIENCE_SECONDS, limits=httpx.Limits()) as http:
            await asyncio.gather(*(self._client(http, until) for _ in range(clients)))

    async def _client(self, http: httpx.AsyncClient, until: float) -> None:
        kinds: list[Callable[[httpx.AsyncClient], Awaitable[str]]]
        kinds = [self._whole, self._whole, self._streamed, self._streamed, self._slow, self._leaves, self._cancels]
        kinds.append(self._mistaken)
        while time.monotonic() < until:
            kind = self._random.choice(kinds)
            try:
                outcome = await asyncio.wait_for(kind(http), PATIENCE_SECONDS)
            except TimeoutError:
                outcome = "stuck"
                self.outcomes.violations.append(f"{kind.__name__}: no end after {PATIENCE_SECONDS} s")
            except (httpx.HTTPError, AssertionError, ValueError, KeyError) as exc:
                outcome = "broken"
                self.outcomes.violations.append(f"{kind.__name__}: {exc!r}")
            self.outcomes.counts[f"{kind.__name__.strip('_')}: {outcome}"] += 1
            if outcome.startswith("refused"):
                await asyncio.sleep(self._random.uniform(0.05, 0.3))

    def _body(self, *, stream: bool) -> tuple[str, dict[str, object]]:
        """Return a path and a request: chat or completion, steered, unsteered or side by side, long or short."""
        choose = self._random
        words = " ".join(
            choose.choice(("one", "two", "(", ")", "três", "猫", "🦀")) for _ in range(choose.randint(1, 60))
        )
        body: dict[str, object] = {"max_tokens": choose.randint(1, 60), "stream": stream, "seed": choose.randint(0, 9)}
        steerings: list[dict[str, object]] = [
            {},
            {"model": f"{self._model}+{self._profile}"},
            {"steering": {"profile": self._profile, "strength": choose.uniform(0, 2)}},
            {"arms": ["baseline", self._profile]},
        ]
        body |= choose.choice(steerings)
        if choose.random() < 0.2:
            body["stop"] = [" ", "e"]
        if choose.random() < 0.2:
            body["n"] = 2
        if choose.random() < 0.5:
            return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": words}]}
        if choose.random() < 0.2:
            body |= {"logprobs": 2, "echo": choose.random() < 0.5}
        return "/v1/completions", body | {"prompt": words}

    async def _whole(self, http: httpx.AsyncClient) -> str:
        path, body = self._body(stream=False)
        answer = await http.post(path, json=body)
        if answer.status_code != 200:
            return _refusal(answer.status_code, answer.content)
        choices = answer.json()["choices"]
        assert choices, answer.text
        assert all(choice["finish_reason"] in ("stop", "length") for choice in choices), answer.text
        return "answered"

    async def _streamed(self, http: httpx.AsyncClient, pause: float = 0) -> str:
        path, body = self._body(stream=True)
        async with http.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                return _refusal(answer.status_code, await answer.aread())
            last, finished = "", 0
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                last = line.removeprefix("data: ")
                if last != "[DONE]":
                    event = json.loads(last)
                    assert "error" not in event, last
                    finished += sum(choice["finish_reason"] is not None for choice in event["choices"])
                await asyncio.sleep(pause)
            assert last == "[DONE]", f"the stream ended with {last!r}"
            wanted = (2 if "arms" in body else 1) * int(str(body.get("n", 1)))
            assert finished == wanted, f"{finished} of {wanted} choices ended"
        return "answered"

    async def _slow(self, http: httpx.AsyncClient) -> str:
        """Read a stream more slowly than it comes."""
        return await self._streamed(http, pause=self._random.uniform(0.05, 0.3))

    async def _leaves(self, http: httpx.AsyncClient) -> str:
        """Read a few events, then close the connection."""
        path, body = self._body(stream=True)
        async with http.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                return _refusal(answer.status_code, await answer.aread())
            events = self._random.randint(0, 5)
            async for line in answer.aiter_lines():
                events -= line.startswith("data: ")
                if events <= 0:
                    break
        return "left"

    async def _cancels(self, http: httpx.AsyncClient) -> str:
        """Wait for an answer for a short time only."""
        path, body = self._body(stream=False)
        try:
            answer = await http.post(path, json=body, timeout=self._random.uniform(0.01, 1))
        except httpx.TimeoutException:
            return "cancelled"
        return "answered" if answer.status_code == 200 else _refusal(answer.status_code, answer.content)

    async def _mistaken(self, http: httpx.AsyncClient) -> str:
        """Send a request that is invalid."""
        path, body = self._body(stream=self._random.random() < 0.5)
        wrong = self._random.choice(
            ({"max_tokens": -1}, {"model": "nobody"}, {"steering": {"profile": "none"}}, {"n": 0})
        )
        answer = await http.post(path, json=body | {"arms": None} | wrong)
        assert answer.status_code in (400, 404, 429), f"{wrong} was answered {answer.status_code}: {answer.text[:200]}"
        assert answer.json()["error"]["message"]
        return f"refused {answer.status_code}"


def _refusal(status: int, content: bytes) -> str:
    """Return the outcome of a valid request that was refused; the answer must say why."""
    error = json.loads(content)["error"]
    assert error["code"] in _REFUSALS.get(status, set()), f"status {status}: {error}"
    return f"refused {status}"
