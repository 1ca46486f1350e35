"""Limits of an engine and their defaults."""

from dataclasses import dataclass
from typing import Literal

InvarianceMode = Literal["auto", "require", "off"]
"""Batch invariance where this machine's kernels allow it; or the engine does not start without it; or none."""


@dataclass(frozen=True)
class EngineLimits:
    """Limits on the work that an engine accepts and on that of one step."""

    max_num_seqs: int = 64
    """Maximum number of sequences that run at the same time."""
    max_queue: int = 256
    """Maximum number of sequences that wait to run."""
    max_length: int | None = None
    """Maximum tokens of one sequence, prompt and completion together; None for the model's context length."""
    max_num_batched_tokens: int = 512
    """Maximum prompt tokens computed in one step, over all sequences."""
    max_num_batched_tokens_mixed: int = 128
    """The same for a mixed step, in which other sequences generate and wait for their next token."""
    kv_cache_memory: int | None = None
    """Bytes of the KV cache; None for 1 GiB, or the size of one sequence of full length if that is more."""
    prefix_cache: bool = True
    """Whether sequences with the same prefix and the same steering share its KV cache."""
    batch_invariant: InvarianceMode = "auto"
    """Whether a sequence's tokens and log-probabilities must not depend on what runs beside it."""


RENAMED = {
    "max_batch": "max_num_seqs",
    "step_tokens": "max_num_batched_tokens",
    "step_tokens_beside": "max_num_batched_tokens_mixed",
    "kv_memory": "kv_cache_memory",
}
"""Former names of limits in settings, which are still accepted."""
