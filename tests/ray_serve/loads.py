"""Load on a running application, and how each of its requests ended."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

TOKENS = 300


class Load:
    """Clients that ask one long question after another, half of them as streams, until they are stopped."""

    def __init__(self, url: str, headers: dict[str, str], clients: int = 16) -> None:
        self._url = url
        self._headers = headers
        self._stop = threading.Event()
        self._ended = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(clients)
        self._outcomes = [self._pool.submit(self._ask, number) for number in range(clients)]
        self.replica = ""
        """That of the stream that has begun last."""

    def wait(self, requests: int) -> None:
        """Wait until so many more requests have ended."""
        for _ in range(requests):
            assert self._ended.acquire(timeout=120), "a request does not end"

    def outcomes(self) -> Counter[str]:
        """Stop, wait for the last answers, and return how each request ended."""
        self._stop.set()
        outcomes = Counter(outcome for each in self._outcomes for outcome in each.result(timeout=120))
        print(outcomes)
        return outcomes

    def _ask(self, number: int) -> list[str]:
        outcomes = []
        while not self._stop.is_set():
            body = {"prompt": f"{number} asks", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
            with httpx.Client(base_url=self._url, headers=self._headers, timeout=120) as client:
                outcomes.append(self._streamed(client, body) if number % 2 else self._whole(client, body))
            self._ended.release()
        return outcomes

    def _whole(self, client: httpx.Client, body: dict[str, Any]) -> str:
        answer = client.post("/v1/completions", json=body)
        if answer.status_code == 200:
            assert answer.json()["usage"]["completion_tokens"] == TOKENS
            return "answered"
        return f"{answer.status_code} {answer.json()['error']['code']}"

    def _streamed(self, client: httpx.Client, body: dict[str, Any]) -> str:
        with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as events:
            if events.status_code != 200:
                events.read()
                return f"{events.status_code} {events.json()['error']['code']}"
            self.replica = events.headers["x-replica"]
            *_, last = [line for line in events.iter_lines() if line]
        if last == "data: [DONE]":
            return "streamed"
        return f"stream {json.loads(last.removeprefix('data: '))['error']['code']}"
