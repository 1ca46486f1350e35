"""Code that observers of sequences share."""

from collections.abc import Callable
from typing import Literal, Protocol

from steering_server.generation.requests import FinishReason, GenerationRequest

Ending = FinishReason | Literal["abort", "error"]
"""The end of a sequence: its finish reason, ``abort`` if its client left, ``error`` if the engine failed."""


class SequenceObserver(Protocol):
    """Follows one sequence. It reads the timeline of the request, which the engine writes."""

    def read(self) -> None:
        """Take note of what is new; called for every chunk."""
        ...

    def end(self, ending: Ending, now: float) -> None:
        """Take note of the end, at ``now`` on the timeline's clock; called once, also if the sequence was refused."""
        ...


Watch = Callable[[GenerationRequest], SequenceObserver]
"""Begins to observe the sequence of a request that is about to be queued."""
