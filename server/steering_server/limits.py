"""Limits of requests, of connections and of an engine, and their defaults; the engines there are."""

from dataclasses import dataclass
from typing import Literal

EngineName = Literal["local", "vllm"]
"""This project's own engine, in this process, or vLLM, in processes of its own."""

InvarianceMode = Literal["auto", "require", "off"]
"""Batch invariance where this machine's kernels allow it; or the engine does not start without it; or none."""

MetricsAccess = Literal["key", "open", "off"]
"""Whether ``/metrics`` needs a key where other routes do, or never needs one, or does not exist."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits on one request."""

    max_body_size: int = 16 * 2**20
    """Bytes of the body."""
    max_body_memory: int | None = None
    """Bytes of all bodies at once; None for 256 MiB, or the maximum size of one body if that is more."""
    max_prompt_tokens: int | None = None
    """Tokens of one prompt; None for what the model's context holds."""
    max_completion_tokens: int | None = None
    """Tokens of one completion; None for what the model's context holds after the prompt."""
    max_request_sequences: int = 1024
    """Sequences: prompts times arms times n."""
    request_timeout: float = 3600
    """Seconds until a request is ended with an error."""

    @property
    def body_memory(self) -> int:
        """Bytes of the bodies of all requests at once."""
        return max(256 * 2**20, self.max_body_size) if self.max_body_memory is None else self.max_body_memory


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on connections and on how slow their clients may be."""

    max_connections: int = 1000
    """Connections at once."""
    max_headers: int = 100
    """Headers of a request."""
    max_header_size: int = 32 * 2**10
    """Bytes of a request's first line and headers together."""
    header_timeout: float = 10
    """Seconds that a client has to send the headers of a request, from the first byte on."""
    client_timeout: float = 60
    """Seconds that a client has to send a body, and to go on reading an answer."""
    keep_alive: float = 75
    """Seconds after which an idle connection is closed; longer than the 60 seconds of most proxies."""


@dataclass(frozen=True)
class EngineLimits:
    """Limits on the work that an engine accepts and on that of one step."""

    max_num_seqs: int = 64
    """Maximum number of sequences that run at the same time."""
    max_queue: int = 4096
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
    cuda_graphs: bool = True
    """Whether decoding steps are captured as CUDA graphs where the whole model is on one GPU."""
    batch_invariant: InvarianceMode = "auto"
    """Whether a sequence's tokens and log-probabilities must not depend on what runs beside it."""


RENAMED = {
    "max_batch": "max_num_seqs",
    "step_tokens": "max_num_batched_tokens",
    "step_tokens_beside": "max_num_batched_tokens_mixed",
    "kv_memory": "kv_cache_memory",
}
"""Former names of limits in settings, which are still accepted."""
