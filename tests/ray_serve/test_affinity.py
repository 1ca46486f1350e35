"""Which requests should meet in one replica, and which replica that is."""

import json
from collections import Counter
from typing import Any

import pytest

from steering_server.ray_serve.affinity import affinity_of, ordered, preferred

REPLICAS = [f"replica-{n}" for n in range(8)]
SYSTEM = {"role": "system", "content": "You close brackets." * 20}


def key(**fields: Any) -> str | None:
    return affinity_of(json.dumps(fields).encode())


def chat(*texts: str, **fields: Any) -> str | None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return key(model="m", messages=[SYSTEM, *turns], **fields)


def test_prompts_that_begin_alike_have_the_same_key():
    document = "All of this is shared. " * 100
    assert key(model="m", prompt=document + "one") == key(model="m", prompt=document + "two", max_tokens=9)
    assert key(model="m", prompt="one") != key(model="m", prompt="two")


@pytest.mark.parametrize(
    "fields", [{"model": "m+parentheses"}, {"steering": {"profile": "parentheses"}}, {"arms": ["baseline", "a"]}]
)
def test_another_steering_is_another_key(fields: dict[str, Any]):
    assert key(**{"model": "m", "prompt": "one"} | fields) != key(model="m", prompt="one")


def test_later_turns_of_a_conversation_have_the_key_of_the_first():
    assert chat("Hello") == chat("Hello", "Good day", "How are you?")
    assert chat("Hello") != chat("Goodbye")
    assert key(model="m", input="Hello") == key(model="m", input="Hello", temperature=0)


def test_the_first_of_several_prompts_counts_and_tokens_count_too():
    assert key(model="m", prompt=["one", "two"]) == key(model="m", prompt="one")
    assert key(model="m", prompt=[[1, 2], [3]]) == key(model="m", prompt=[1, 2]) != key(model="m", prompt=[1, 3])


DEEP = b'{"messages": ' + 100_000 * b"[" + 100_000 * b"]" + b"}"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"{}", b'{"prompt": ""}', b'{"prompt": 3}', b'{"messages": 3}', pytest.param(DEEP, id="deep")],
)
def test_what_has_no_prompt_has_no_key(body: bytes):
    assert affinity_of(body) is None


def test_keys_are_spread_evenly_and_each_stays_where_it_is():
    first = Counter(ordered(f"key-{n}", REPLICAS)[0] for n in range(4000))
    assert set(first) == set(REPLICAS)
    assert max(first.values()) < 1.2 * 500
    assert ordered("key", REPLICAS) == ordered("key", REPLICAS[::-1])


def test_when_a_replica_goes_only_its_own_keys_move():
    keys = [f"key-{n}" for n in range(1000)]
    before = {key: ordered(key, REPLICAS)[0] for key in keys}
    after = {key: ordered(key, REPLICAS[1:])[0] for key in keys}
    moved = [key for key in keys if before[key] != after[key]]
    assert all(before[key] == REPLICAS[0] for key in moved)
    assert len({after[key] for key in moved}) == 7


def test_a_replica_with_more_than_its_share_is_passed_over():
    favourite, second = ordered("key", REPLICAS)[:2]
    idle = dict.fromkeys(REPLICAS, 3)
    assert preferred("key", idle, tolerance=1.25, slack=2)[0] == favourite
    busy = idle | {favourite: 12}
    order = preferred("key", busy, tolerance=1.25, slack=2)
    assert order[0] == second
    assert order[-1] == favourite
    assert preferred("key", busy, tolerance=1.25, slack=20)[0] == favourite
