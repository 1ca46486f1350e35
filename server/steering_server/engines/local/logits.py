"""Reductions of the rows of logits: by compiled kernels where they are float32 on a CPU, else by PyTorch's."""

from torch import Tensor, float32

from steering_server.engines.local import kernels


def largest(logits: Tensor) -> Tensor:
    """Return the largest of each row of ``[rows, vocab]``, a NaN if there is one: ``[rows]``."""
    return kernels.summarise(logits).largest if _is_compiled(logits) else logits.amax(dim=-1)


def likeliest(logits: Tensor) -> Tensor:
    """Return the token with the largest logit of each row, the lowest id among equals: ``[rows]``."""
    # On bfloat16 argmax takes several times as long, conversion included.
    return kernels.summarise(logits).likeliest if _is_compiled(logits) else logits.float().argmax(dim=-1)


def logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probabilities of ``tokens``, ``[rows, n]``, by ``logits``, ``[rows, vocab]``; in float32."""
    if _is_compiled(logits):
        return kernels.logprobs(logits, tokens)
    return logits.float().log_softmax(dim=-1).gather(-1, tokens)


def _is_compiled(logits: Tensor) -> bool:
    return kernels.UNAVAILABLE is None and logits.device.type == "cpu" and logits.dtype == float32
