"""The application on two nodes: the same API, requests that find their replica, and what happens when one is lost."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.store import save_profile
from steering_server.access.key_files import added, edit_key_file
from steering_server.access.keys import ApiKey, generate_secret, hash_secret
from tests.builders import build_model, build_profile, profiles_for
from tests.ray_serve.cluster import Running, saved, two_nodes
from tests.ray_serve.loads import Load
from tests.serving import serving

pytestmark = pytest.mark.timeout(600)

PROMPT = "#print the string 123\nprint(str(str(str(123"
LONG = 900
"""Tokens of an answer that takes seconds."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with two_nodes() as running:
        yield running


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama", dtype=torch.float32, context=1024)


@dataclass(frozen=True)
class Deployed:
    """The application with two replicas of a small model, one on each node."""

    cluster: Running
    headers: dict[str, str]
    profiles: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.cluster.url, headers=self.headers, timeout=120)

    def complete(self, **fields: Any) -> httpx.Response:
        body = {"model": "base", "prompt": "abc", "max_tokens": 4, "temperature": 0} | fields
        with self.client() as client:
            return client.post("/v1/completions", json=body)

    def load(self) -> Load:
        return Load(self.cluster.url, self.headers)

    def wait_for(self, replicas: int) -> None:
        """Wait until so many replicas answer."""
        self.cluster.wait(
            lambda: (
                len({self.complete(prompt=f"{n} waits", max_tokens=1).headers["x-replica"] for n in range(12)})
                == replicas
            )
        )


@pytest.fixture(scope="module")
def deployed(cluster: Running, loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    folder = tmp_path_factory.mktemp("deployed")
    for profile in profiles_for(loaded):
        save_profile(profile, folder / "profiles")
    secret = generate_secret()
    admin = ApiKey(name="operator", sha256=hash_secret(secret.encode()), role="admin")
    edit_key_file(folder / "keys.json", lambda known: added(known, admin))
    settings = {
        "model": str(saved(loaded, folder / "model")),
        "dtype": "float32",
        "served_name": "base",
        "profiles": str(folder / "profiles"),
        "profiles_poll": 0,
        "api_keys_file": str(folder / "keys.json"),
        "max_num_seqs": 8,
        "max_body_size": 2**20,
        "insecure": False,
    }
    cluster.deploy(settings, {"num_replicas": 2, "max_replicas_per_node": 1})
    return Deployed(cluster, {"authorization": f"Bearer {secret}"}, folder / "profiles")


@pytest.fixture(scope="module")
def alone(loaded: LoadedModel, deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of the same model by itself."""
    folder = tmp_path_factory.mktemp("alone")
    with (
        serving(loaded, folder, profiles_for(loaded), served_name="base") as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


_OWN = {"date", "server", "x-request-id", "x-replica", "content-length", "connection", "keep-alive"}
_VOLATILE = {"id", "created"}


def shape(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of an answer, without what differs from one to the next."""
    headers = {name: value for name, value in response.headers.items() if name not in _OWN}
    text = response.text
    if headers.get("content-type", "").startswith("text/event-stream"):
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        return response.status_code, headers, [_stable(event) for event in events]
    return response.status_code, headers, _stable(text)


def _stable(text: str) -> Any:
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return {name: value for name, value in found.items() if name not in _VOLATILE}
    return text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/completions", {"model": "base", "prompt": "abc", "max_tokens": 6, "temperature": 0}),
        ("POST", "/v1/completions", {"prompt": "abc", "arms": ["baseline", "heads"], "temperature": 0, "logprobs": 2}),
        ("POST", "/v1/completions", {"prompt": "ab", "stream": True, "temperature": 0, "model": "base+heads"}),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "temperature": 0}),
        ("POST", "/v1/completions", {"model": "nope", "prompt": "abc"}),
        ("POST", "/v1/completions", {"prompt": "abc", "temperature": -1}),
        ("POST", "/v1/completions", {"prompt": "a" * 2**20}),
        ("POST", "/tokenize", {"prompt": "abc"}),
        ("GET", "/v1/models", None),
        ("GET", "/v1/profiles/heads", None),
        ("GET", "/nothing", None),
        ("DELETE", "/v1/completions", None),
    ],
)  # fmt: skip
def test_answers_are_those_of_a_server_by_itself(
    deployed: Deployed, alone: httpx.Client, method: str, path: str, body: Any
) -> None:
    with deployed.client() as client:
        passed = client.request(method, path, json=body, headers={"x-request-id": "mine"})
    expected = alone.request(method, path, json=body, headers={"x-request-id": "mine"})
    if len(str(body)) > 2**20:
        assert (passed.status_code, passed.json()["error"]["code"]) == (413, "body_too_large")
        return
    assert _without_time(shape(passed)) == _without_time(shape(expected))
    assert passed.headers.get_list("x-request-id") == ["mine"]
    assert passed.headers["x-replica"] in deployed.cluster.replicas()


def _without_time(found: tuple[int, dict[str, str], Any]) -> tuple[int, dict[str, str], Any]:
    status, headers, body = found
    if isinstance(body, dict) and isinstance(body.get("data"), list):
        return status, headers, [{**each, "created": 0} for each in body["data"]]
    return found


def test_who_has_no_key_is_told_so(deployed: Deployed) -> None:
    answer = httpx.post(f"{deployed.cluster.url}/v1/completions", json={"prompt": "abc"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_events_come_as_they_are_made(deployed: Deployed) -> None:
    body = {"prompt": "abc", "max_tokens": LONG, "temperature": 0, "stream": True, "ignore_eos": True}
    with deployed.client() as client, client.stream("POST", "/v1/completions", json=body) as events:
        parts = [len(part) for part in events.iter_raw()]
    assert len(parts) > 50


def test_requests_that_can_share_meet_in_one_replica(deployed: Deployed) -> None:
    def asked(number: int, model: str = "base") -> str:
        return deployed.complete(model=model, prompt=f"{number} begins", max_tokens=1).headers["x-replica"]

    first = [asked(number) for number in range(20)]
    assert set(first) == set(deployed.cluster.replicas())  # prompts are spread
    assert [asked(number) for number in range(20)] == first
    steered = [asked(number, "base+heads") for number in range(20)]
    assert steered != first  # another steering shares nothing
    assert [asked(number, "base+heads") for number in range(20)] == steered


def test_a_stream_that_its_client_leaves_makes_room(deployed: Deployed) -> None:
    body = {"prompt": ["left alone"] * 8, "max_tokens": LONG, "stream": True, "ignore_eos": True}
    for _ in range(6):
        with deployed.client() as client, client.stream("POST", "/v1/completions", json=body) as events:
            next(events.iter_lines())
    # 48 sequences of 900 tokens would come before this one, in a replica that runs 8 at once.
    answer = deployed.complete(prompt=["left alone"], max_tokens=1)
    assert answer.elapsed.total_seconds() < 5


def test_a_profile_that_is_added_or_disabled_is_so_in_every_replica(deployed: Deployed, loaded: LoadedModel) -> None:
    def statuses() -> Counter[int]:
        return Counter(deployed.complete(model="base+added", prompt=f"{n} abc").status_code for n in range(12))

    assert statuses() == {404: 12}
    source = save_profile(build_profile(loaded, "added", heads=[(0, 0, 1.5)]), deployed.profiles.parent / "elsewhere")
    with deployed.client() as client:
        put = client.put("/v1/profiles/added", json=json.loads(Path(source).read_text()))
        assert put.status_code == 201, put.text
        assert statuses() == {200: 12}
        assert client.post("/v1/profiles/added/disable").status_code == 200
        assert 200 not in statuses()
        assert client.post("/v1/profiles/added/enable").status_code == 200
        assert statuses() == {200: 12}
        assert client.delete("/v1/profiles/added").status_code == 200
        assert statuses() == {404: 12}


def test_scaling_down_under_load_loses_no_request(deployed: Deployed) -> None:
    load = deployed.load()
    load.wait(16)
    deployed.cluster.scale(1)
    deployed.cluster.wait(lambda: len(deployed.cluster.replicas()) == 1)
    outcomes = load.outcomes()
    deployed.cluster.scale(2)
    deployed.wait_for(2)
    assert set(outcomes) == {"answered", "streamed"}, outcomes


def test_a_replica_that_is_killed_under_load_leaves_no_request_without_an_end(deployed: Deployed) -> None:
    load = deployed.load()
    load.wait(16)
    victim = load.replica
    deployed.cluster.kill(victim)
    load.wait(32)
    outcomes = load.outcomes()
    assert set(outcomes) <= {"answered", "streamed", "stream replica_lost", "503 replica_lost"}
    assert outcomes["stream replica_lost"] > 0  # else the replica was not killed in the middle of an answer
    assert outcomes["503 replica_lost"] == 0  # what had not begun was answered by the other replica
    deployed.wait_for(2)
    assert victim not in deployed.cluster.replicas()


def test_a_node_that_is_lost_under_load_leaves_no_request_without_an_end(deployed: Deployed) -> None:
    load = deployed.load()
    load.wait(16)
    deployed.cluster.lose_node()
    deployed.wait_for(1)  # its processes end some seconds later
    load.wait(16)
    outcomes = load.outcomes()
    assert set(outcomes) <= {"answered", "streamed", "stream replica_lost", "503 replica_lost"}
