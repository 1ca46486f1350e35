"""How much an engine does at a time, and what that is unless somebody says otherwise."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLimits:
    """How much the engine does at a time."""

    max_batch: int = 64
    """Sequences that run at the same time."""
    max_queue: int = 256
    """Sequences that may wait for a place in the batch."""
    max_length: int | None = None
    """Tokens of one sequence, prompt and completion together; None is what the model was made for."""
    step_tokens: int = 512
    """Prompt tokens computed in one step, over all sequences."""
    step_tokens_beside: int = 128
    """Prompt tokens computed in a step in which other sequences wait for their next token."""
    kv_memory: int | None = None
    """Bytes that keys and values may take; None is 1 GiB, or what one sequence of full length takes if that is more."""
    prefix_cache: bool = True
    """Whether sequences that begin alike and are steered alike share what was computed for their beginning."""
