"""What is noted of every request of an experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exposure:
    """What happened to one request of an experiment."""

    id: str
    experiment_id: int
    arm: int
    period: int
    unit: bytes
    at: float
    """Unix time at which the request was assigned."""
    latency: float
    """Seconds from the assignment to the last token, or to the failure."""
    time_to_first_token: float | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    """``stop``, ``length``, ``abort`` if the client left, or ``error``."""
    profiles: Sequence[str]
    """Content hashes of what was applied."""
    prompt: str | None = None
    answer: str | None = None

    def row(self) -> dict[str, Any]:
        """Return the exposure as it is stored."""
        return {
            **vars(self),
            "failed": self.finish_reason == "error",
            "profiles": list(self.profiles),
            "prompt": _storable(self.prompt),
            "answer": _storable(self.answer),
        }


def _storable(text: str | None) -> str | None:
    """Return a text as PostgreSQL takes it, which has no character 0."""
    return None if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")
