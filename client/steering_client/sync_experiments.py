# Generated from async_experiments.py by client/generate_sync.py; change that one.
"""Experiments of a server, which ``client.experiments`` reaches."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steering_client import protocol
from steering_client.experiment_types import (
    Experiment,
    ExperimentList,
    ExperimentReport,
    ExperimentSeries,
    OutcomesStored,
)

if TYPE_CHECKING:
    from steering_client.sync_client import SteeringClient


class Experiments:
    """The experiments of a server. All but outcomes needs an API key with the role admin."""

    def __init__(self, client: "SteeringClient") -> None:
        self._client = client

    def create(
        self, name: str, arms: Sequence[Mapping[str, Any]], outcome: Mapping[str, Any], **options: Any
    ) -> Experiment:
        """Define an experiment, which does not run before it is started.

        Args:
            name: Its name, which is never used again.
            arms: ``{"name": ..., "steering": ..., "weight": ...}`` for each; the first one is the control.
            outcome: ``{"name": ...}`` for a rate; ``kind``, ``lower`` and ``upper`` for a mean.
            options: Other fields of ``POST /v1/experiments``, such as ``requests``, ``unit`` and ``guardrails``.

        Raises:
            BadRequest: The definition is not valid; the message names the field.
            NotFound: An arm names a profile that the server does not have.
            Conflict: There is an experiment of this name.
        """
        body = {"name": name, "arms": list(arms), "outcome": outcome, **options}
        return self._client._send("POST", "/v1/experiments", body, Experiment)

    def all(self, state: str | None = None) -> tuple[Experiment, ...]:
        """List all experiments, or those in a state, the newest first."""
        query = "" if state is None else f"?state={protocol.escaped(state)}"
        answer = self._client._send("GET", f"/v1/experiments{query}", None, ExperimentList)
        return answer.data

    def show(self, name: str) -> Experiment:
        """Return an experiment with every change of it."""
        return self._client._send("GET", protocol.experiment_path(name), None, Experiment)

    def start(self, name: str) -> Experiment:
        """Begin to assign requests, or go on after a stop.

        Raises:
            Conflict: Its state does not allow it, or another experiment has all requests already.
        """
        return self._client._send("POST", protocol.experiment_path(name, "start"), None, Experiment)

    def stop(self, name: str) -> Experiment:
        """Assign no more requests. Outcomes of earlier exposures are still taken."""
        return self._client._send("POST", protocol.experiment_path(name, "stop"), None, Experiment)

    def archive(self, name: str) -> Experiment:
        """Close an experiment for good. It can still be reported."""
        return self._client._send("POST", protocol.experiment_path(name, "archive"), None, Experiment)

    def set_weights(self, name: str, weights: Mapping[str, float]) -> Experiment:
        """Change the weights of the arms, which add up to 1. As few units as possible move to another arm."""
        body = {"weights": dict(weights)}
        return self._client._send("PUT", protocol.experiment_path(name, "weights"), body, Experiment)

    def add_outcomes(self, name: str, outcomes: Iterable[Mapping[str, Any]]) -> OutcomesStored:
        """Store outcomes: ``{"exposure": answer.exposure.id, "value": 1}``, with ``metric`` and ``key`` if wanted.

        When this returns they are on the server's disk. They are sent again if the connection breaks, and stored once.

        Raises:
            BadRequest: One of them is not valid; the message names it, and none is stored.
            Conflict: One of them was stored before with another value; none is stored.
        """
        body = {"outcomes": [dict(outcome) for outcome in outcomes]}
        path = protocol.experiment_path(name, "outcomes")
        return self._client._send("POST", path, body, OutcomesStored, repeatable=True)

    def report(self, name: str) -> ExperimentReport:
        """Compare the arms. It may be looked at at any time: the intervals stay valid."""
        return self._client._send("GET", protocol.experiment_path(name, "report"), None, ExperimentReport)

    def series(self, name: str, points: int = 60) -> ExperimentSeries:
        """Return the primary outcome over time, as reports would have shown it at each of so many times."""
        path = f"{protocol.experiment_path(name, 'series')}?points={points:d}"
        return self._client._send("GET", path, None, ExperimentSeries)
