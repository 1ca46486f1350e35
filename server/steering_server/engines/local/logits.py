"""What logits come to, row by row: by compiled kernels where they are float32 on a CPU, else by PyTorch's."""

from torch import Tensor, float32

from steering_server.engines.local import kernels


def largest(logits: Tensor) -> Tensor:
    """Return the largest of each row of ``[rows, vocab]``, a NaN if there is one: ``[rows]``."""
    return kernels.summarise(logits).largest if _is_compiled(logits) else logits.amax(dim=-1)


def likeliest(logits: Tensor) -> Tensor:
    """Return the token with the largest logit of each row, the lowest id among equals: ``[rows]``."""
    # On bfloat16 argmax takes several times as long, conversion included.
    return kernels.summarise(logits).likeliest if _is_compiled(logits) else logits.float().argmax(dim=-1)


def normalisers(logits: Tensor) -> Tensor:
    """Return the logarithm of the sum of the exponentials of each row: ``[rows]`` in float32."""
    return kernels.normalisers(logits) if _is_compiled(logits) else logits.float().logsumexp(dim=-1)


def _is_compiled(logits: Tensor) -> bool:
    return kernels.UNAVAILABLE is None and logits.device.type == "cpu" and logits.dtype == float32
