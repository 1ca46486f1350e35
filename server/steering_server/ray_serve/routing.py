"""The request router of the engine's deployment, by Ray Serve's own interface for routers."""

import random
from collections.abc import Sequence
from typing import Any

from ray.serve.request_router import (
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)

from steering_server.ray_serve.affinity import preferred
from steering_server.ray_serve.forwarding import Forwarded

TOLERANCE = 1.25
SLACK = 4


class AffinityRouter(LocalityMixin, MultiplexMixin, RequestRouter):  # type: ignore[misc]  # Ray is not typed here
    """Sends requests that can share keys and values to the same replica, as long as it is not overloaded."""

    def initialize_state(self, tolerance: float = TOLERANCE, slack: int = SLACK) -> None:
        """Take the bound on a replica's load, see :func:`.preferred`; Ray passes ``request_router_kwargs``."""
        self._tolerance = tolerance
        self._slack = slack

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return ranks of replicas, the most preferred first; Ray takes the first one that has room."""
        if pending_request is not None:
            # Each call considers all replicas, so that Ray has to wait before it calls again.
            pending_request.routing_context.should_backoff = True
        key = _affinity(pending_request.args) if pending_request is not None else None
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if key is None:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas))), candidate_replicas]
        order = preferred(key, self._loads(replicas), tolerance=self._tolerance, slack=self._slack)
        return [[replicas[name]] for name in order[:3]] + [[replicas[name] for name in order[3:]]]

    def _loads(self, replicas: dict[str, RunningReplica]) -> dict[str, int]:
        """Return the requests of each replica as last heard of; 0 where nothing was heard lately, as of an idle one."""
        cache = self.replica_queue_len_cache
        return {name: cache.get(replica.replica_id) or 0 for name, replica in replicas.items()}


def _affinity(arguments: Sequence[Any]) -> str | None:
    first = arguments[0] if arguments else None
    return first.affinity if isinstance(first, Forwarded) else None
