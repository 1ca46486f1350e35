"""Gates: which of two sets of logits holds at a position.

What a gated profile does in the final layer reaches nothing but the logits at its own position, since the keys and
values of that layer come from its input. So a row with a gate is computed twice, with the gated effects and without,
and at each position one of the two results holds. What the gate looks at is said by
:class:`steering_profiles.schema.Gate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.schema import FinalLayer, Gate
from steering_profiles.steering.hooks import SteeringHandle

_POSITIONS = 256
"""Positions whose logits are taken to float32 at a time: 50 MB of a vocabulary of 49,152."""


@dataclass(frozen=True)
class Gated:
    """A steering with a gate, as the two without one that the gate chooses between."""

    gate: Gate
    closed: Steering
    """Without the gated final layers; all else applies, a final layer without a gate included."""
    opened: Steering
    """Everything."""


def split(steering: Steering) -> Gated | None:
    """Return the two steerings that the gate of ``steering`` chooses between, or None without a gate."""
    if steering.gate is None:
        return None
    return Gated(steering.gate, Steering(tuple(map(_closed, steering))), Steering(tuple(map(_opened, steering))))


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
    splits = [split(steering) for steering in steerings]
    with handle.applied([one.closed if one else steering for one, steering in zip(splits, steerings, strict=True)]):
        closed = forward()
    if not any(splits):
        return closed
    with handle.applied([one.opened if one else steering for one, steering in zip(splits, steerings, strict=True)]):
        opened = forward()
    chosen = [
        choose_logits(opened[row], closed[row], one.gate) if one else closed[row] for row, one in enumerate(splits)
    ]
    return torch.stack(chosen)


def _closed(applied: ProfileAtStrength) -> ProfileAtStrength:
    return _with(applied, "closed", {"final_layer": FinalLayer(), "tensors": {}})


def _opened(applied: ProfileAtStrength) -> ProfileAtStrength:
    return _with(applied, "opened", {"final_layer": applied.profile.final_layer.model_copy(update={"gate": None})})


def _with(applied: ProfileAtStrength, state: str, changes: dict[str, object]) -> ProfileAtStrength:
    if applied.gate is None:
        return applied
    # Another profile now, which its hash has to say; hashing all of its content would take longer.
    return replace(applied, profile=applied.profile.model_copy(update=changes), known_hash=f"{applied.key[0]} {state}")
