"""Many replicas and the requests on them: how often a prefix is found where the request goes, and how even the load is.

Uses the order of replicas that the ingress of Ray Serve uses; see steering_server.ray_serve.affinity.
"""

import heapq
import random
import statistics
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from steering_server.ray_serve.affinity import ordered, within

Policy = Literal["any", "less loaded of two", "affinity", "affinity with bounded loads"]
POLICIES: tuple[Policy, ...] = ("any", "less loaded of two", "affinity", "affinity with bounded loads")


@dataclass(frozen=True)
class Traffic:
    """Requests that come at random times; each has one of several prefixes, the second half as often as the first."""

    replicas: int
    prefixes: int
    profiles: int
    """Profiles that requests choose among, equally often."""
    at_once: int = 24
    """Requests that a replica has on average."""
    kept: int = 8
    """Prefixes that a replica keeps, the most recently used ones."""
    requests_per_replica: int = 100


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    found: float
    """Share of requests whose prefix was there."""
    fullest: float
    """The load of the replica with most requests over the mean, on average over time."""


def simulate(traffic: Traffic, policy: Policy, *, tolerance: float = 1.25, slack: int = 4, seed: int = 0) -> Outcome:
    """Return what a policy reaches; the first fifth of the requests only fills caches."""
    drawn = random.Random(seed)
    names = [f"replica-{n}" for n in range(traffic.replicas)]
    loads = dict.fromkeys(names, 0)
    caches: dict[str, OrderedDict[str, None]] = {name: OrderedDict() for name in names}
    orders: dict[str, list[str]] = {}
    weights = [1 / (rank + 10) for rank in range(traffic.prefixes)]  # a few are frequent, most are rare
    running: list[tuple[float, str]] = []
    mean_seconds, now = 1.0, 0.0
    rate = traffic.replicas * traffic.at_once / mean_seconds
    count = traffic.replicas * traffic.requests_per_replica
    prefixes = drawn.choices(range(traffic.prefixes), weights, k=count)
    found, fullest = [], []
    for number, prefix in enumerate(prefixes):
        now += drawn.expovariate(rate)
        while running and running[0][0] <= now:
            loads[heapq.heappop(running)[1]] -= 1
        key = f"{prefix}/{drawn.randrange(traffic.profiles)}"
        if policy.startswith("affinity") and key not in orders:
            orders[key] = ordered(key, names)[:50]
        if policy == "any":
            chosen = drawn.choice(names)
        elif policy == "less loaded of two":
            chosen = min(drawn.sample(names, 2), key=lambda name: loads[name])
        elif policy == "affinity":
            chosen = orders[key][0]
        else:
            # The load of all is known from the number of requests that run.
            bound = within(len(running), len(names), tolerance=tolerance, slack=slack)
            chosen = next((name for name in orders[key] if loads[name] <= bound), orders[key][0])
        loads[chosen] += 1
        heapq.heappush(running, (now + drawn.expovariate(1 / mean_seconds), chosen))
        cache = caches[chosen]
        if number > count / 5:
            found.append(key in cache)
            if number % (traffic.replicas * 2) == 0:
                fullest.append(max(loads.values()) * len(names) / len(running))
        cache[key] = None
        cache.move_to_end(key)
        if len(cache) > traffic.kept:
            cache.popitem(last=False)
    return Outcome(statistics.mean(found), statistics.mean(fullest))
