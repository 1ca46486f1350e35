"""Which replica has what a request can share: the same steering and the same beginning of a prompt. No Ray in here.

Requests share keys and values in a replica's KV cache if they begin alike under the same steering. So both make a key,
and rendezvous hashing (Thaler and Ravishankar, 1998) orders the replicas for it: the same in every ingress, without
state that could be lost, and when a replica goes or comes, only its own keys move. A replica that has more than its
share of requests is passed over, as in consistent hashing with bounded loads (Mirrokni et al., 2016).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

PROMPT_CHARACTERS = 256
"""Characters of a plain prompt that count: more would part prompts that share a shorter beginning."""
CHAT_CHARACTERS = 4096
"""Characters of a conversation that count, up to the end of its first question: later turns find the same replica."""


def affinity_of(body: bytes) -> str | None:
    """Return the key of a request that generates text, None if it has no prompt that can be read."""
    try:
        key = _key(json.loads(body))
    except (ValueError, RecursionError):  # what is invalid, or nested too deeply, is for a replica to refuse
        return None
    return None if key is None else hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _key(fields: Any) -> str | None:
    beginning = _beginning(fields) if isinstance(fields, dict) else ""
    if not beginning:
        return None
    steering = [fields.get(name) for name in ("model", "steering", "arms")]
    return json.dumps([steering, beginning], sort_keys=True)


def _beginning(fields: Mapping[str, Any]) -> str:
    """Return the beginning of the prompt: of the first one, if there are several."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt[:PROMPT_CHARACTERS]
    if isinstance(prompt, list):  # of token ids
        return json.dumps(prompt[: PROMPT_CHARACTERS // 4])
    messages = fields.get("messages", fields.get("input"))
    before = [fields.get("instructions"), fields.get("tools")]
    if isinstance(messages, str):
        return json.dumps([before, messages])[:CHAT_CHARACTERS]
    if not isinstance(messages, list):
        return ""
    return json.dumps([before, _until_first_question(messages)])[:CHAT_CHARACTERS]


def _until_first_question(messages: Sequence[Any]) -> list[Any]:
    for place, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return list(messages[: place + 1])
    return list(messages)


def ordered(key: str, replicas: Sequence[str]) -> list[str]:
    """Return ids of replicas in the order in which requests with ``key`` should try them."""
    return sorted(replicas, key=lambda replica: hashlib.blake2b(f"{key}/{replica}".encode()).digest())


def preferred(key: str, loads: Mapping[str, int], *, tolerance: float, slack: int) -> list[str]:
    """Return ids of replicas in order, first those whose load is within the bound.

    Args:
        key: of the request.
        loads: requests that each replica has.
        tolerance: how much more than the mean of all loads a replica may have, as a factor.
        slack: requests that it may have beyond that.
    """
    bound = within(sum(loads.values()), len(loads), tolerance=tolerance, slack=slack)
    order = ordered(key, list(loads))
    return sorted(order, key=lambda replica: loads[replica] > bound)  # sorting is stable


def within(requests: int, replicas: int, *, tolerance: float, slack: int) -> float:
    """Return the load up to which a replica is not passed over, with so many requests on all of them."""
    return tolerance * requests / max(replicas, 1) + slack
