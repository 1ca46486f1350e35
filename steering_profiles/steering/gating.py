"""Gates: which of two sets of logits holds at a position.

What a gated profile does in the final layer reaches nothing but the logits at its own position, since the keys and
values of that layer come from its input. So a row with a gate is computed twice, with the gated effects and without,
and at each position one of the two results holds. What the gate looks at is said by
:class:`steering_profiles.schema.Gate`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steering_profiles.composition import Steering
from steering_profiles.schema import Gate
from steering_profiles.steering.hooks import SteeringHandle

_POSITIONS = 256
"""Positions whose logits are taken to float32 at a time: 50 MB of a vocabulary of 49,152."""


def is_open(closed: Tensor, gate: Gate) -> Tensor:
    """Return at which positions of the ``closed`` logits, ``[..., vocab]``, ``gate`` is open: booleans, ``[...]``.

    It is where their largest probability, by a softmax in float32, lies in its band, and stays shut where they are not
    finite.
    """
    positions = closed.flatten(0, -2).split(_POSITIONS)
    top = torch.cat([some.float().softmax(dim=-1).amax(dim=-1) for some in positions]).view(closed.shape[:-1])
    return (top >= gate.low) & (top <= gate.high)


def choose_logits(opened: Tensor, closed: Tensor, gate: Gate) -> Tensor:
    """Return, at each position, the ``opened`` logits where ``gate`` is open and the ``closed`` ones elsewhere.

    All are ``[..., vocab]``; the gate looks at the ``closed`` ones: :func:`is_open`.
    """
    return torch.where(is_open(closed, gate).unsqueeze(-1), opened, closed)


def steered_logits(handle: SteeringHandle, steerings: Sequence[Steering], forward: Callable[[], Tensor]) -> Tensor:
    """Return the logits of ``forward``, steered row by row, with every row's gate.

    ``forward`` makes one pass over a ``[batch, seq]`` input and returns ``[batch, positions, vocab]``. It is called a
    second time if some row is gated, and must then find everything as it was, a cache too.

    Raises:
        HookError: some row's steering did not take place.
    """
    with handle.applied([steering.closed for steering in steerings]):
        closed = forward()
    if all(steering.gate is None for steering in steerings):
        return closed
    with handle.applied([steering.opened for steering in steerings]):
        opened = forward()
    chosen = [
        closed[row] if steering.gate is None else choose_logits(opened[row], closed[row], steering.gate)
        for row, steering in enumerate(steerings)
    ]
    return torch.stack(chosen)
