"""When things happened to one sequence. The engine writes it; whoever observes the engine reads it."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Timeline:
    """Times of one sequence, in seconds of ``time.monotonic()``; None for what has not happened.

    One thread writes and others read. They see every value soon, and lists only grow.
    """

    queued_at: float | None = None
    """When the engine accepted the sequence."""
    started_at: float | None = None
    """When it began to run for the first time."""
    token_at: list[float] = field(default_factory=list)
    """When each token was generated, whether or not it has been reported."""
