"""Requests of the tests of experiments over HTTP, and the client that sends them."""

from typing import Any

import httpx

from steering_server.experiments.live import Experiments

ARMS = [
    {"name": "control", "steering": "baseline", "weight": 0.5},
    {"name": "warm", "steering": "heads@0.5", "weight": 0.5},
]
BODY: dict[str, Any] = {
    "name": "greeting", "arms": ARMS, "outcome": {"name": "solved"}, "requests": "all", "salt": "salt"
}  # fmt: skip
"""An experiment; its salt fixes who gets which arm."""
ASKS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hello", "max_tokens": 3, "temperature": 0},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "temperature": 0},
    "/v1/responses": {"input": "hi", "max_output_tokens": 3, "temperature": 0},
}


class Api:
    """A server with experiments and one client of it."""

    def __init__(self, url: str, experiments: Experiments) -> None:
        self.url = url
        self.experiments = experiments
        self.http = httpx.Client(base_url=url, timeout=60)

    def send(self, method: str, path: str, body: Any = None, *, status: int = 200, **options: Any) -> Any:
        """Send a request, expect a status and return the answer."""
        response = self.http.request(method, path, json=body, **options)
        assert response.status_code == status, response.text
        return response.json()

    def begin(self, **changes: Any) -> None:
        """Create and start an experiment."""
        made = self.send("POST", "/v1/experiments", BODY | changes, status=201)
        self.send("POST", f"/v1/experiments/{made['name']}/start")

    def end(self) -> None:
        """Stop what runs."""
        for one in self.send("GET", "/v1/experiments?state=running")["data"]:
            self.send("POST", f"/v1/experiments/{one['name']}/stop")

    def refused(
        self, method: str, path: str, body: Any = None, *, status: int = 400, **options: Any
    ) -> tuple[Any, str]:
        """Send a request that is refused; return the field and the message."""
        error = self.send(method, path, body, status=status, **options)["error"]
        return error["param"], error["message"]
