"""Gates: the choice between two sets of logits at each position.

The final-layer effects of a gated profile change only the logits at their own position, because the keys and values of
the final layer come from its input. So a gated row is computed twice, with the gated effects and without, and the gate
chooses between the logits at each position. See :class:`steering_profiles.final_layer_fields.Gate`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steering_profiles.composition import Steering
from steering_profiles.final_layer_fields import Gate
from steering_profiles.steering.hooks import SteeringHandle

_POSITIONS = 256
"""Number of positions whose logits are converted to float32 at a time: 50 MB for a vocabulary of 49,152."""


def is_open(closed: Tensor, gate: Gate) -> Tensor:
    """Return whether ``gate`` is open at each position of the ``closed`` logits, ``[..., vocab]``: booleans, ``[...]``.

    It is open where the largest probability, by a softmax in float32, is in the band, and closed where the logits are
    not finite.
    """
    positions = closed.flatten(0, -2).split(_POSITIONS)
    top = torch.cat([some.float().softmax(dim=-1).amax(dim=-1) for some in positions]).view(closed.shape[:-1])
    return (top >= gate.low) & (top <= gate.high)


def choose_logits(opened: Tensor, closed: Tensor, gate: Gate) -> Tensor:
    """Return the ``opened`` logits at positions where ``gate`` is open, and the ``closed`` logits elsewhere.

    All are ``[..., vocab]``. The gate tests the ``closed`` logits: see :func:`is_open`.
    """
    return torch.where(is_open(closed, gate).unsqueeze(-1), opened, closed)


def steered_logits(
    handle: SteeringHandle,
    steerings: Sequence[Steering],
    forward: Callable[[], Tensor],
    held: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return the logits of ``forward`` with a steering per row, gates included.

    ``forward`` makes one pass over a ``[batch, seq]`` input and returns ``[batch, positions, vocab]``. It is called
    twice if a row is gated, and must find the same state each time, including a KV cache. ``held`` are the conditions
    that hold at each position, see :meth:`.SteeringHandle.applied`.

    Raises:
        ConditionError: a steering has conditions, and ``held`` is not given.
        HookError: a hook did not run, so a row was not steered.
    """
    with handle.applied([steering.closed for steering in steerings], held):
        closed = forward()
    if all(steering.gate is None for steering in steerings):
        return closed
    with handle.applied([steering.opened for steering in steerings], held):
        opened = forward()
    chosen = [
        closed[row] if steering.gate is None else choose_logits(opened[row], closed[row], steering.gate)
        for row, steering in enumerate(steerings)
    ]
    return torch.stack(chosen)
