"""Steering table: a row of factors for each distinct steering in use, gathered once per step for a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steering_profiles.composition import Steering
from steering_profiles.errors import GateError
from steering_profiles.models import Sizes
from steering_profiles.steering.effects import Effect, effect_of

_Key = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class StepFactors:
    """Factors of one forward pass, for the layers that are steered in the batch.

    The leading dimensions of each tensor are the shape given to :meth:`SteeringTable.gather`.
    """

    heads: dict[int, Tensor] = field(default_factory=dict)
    """Per layer ``[..., heads * head_dim]``: the factor of each head, repeated for each of its dimensions."""
    neurons: dict[int, Tensor] = field(default_factory=dict)
    """Per layer ``[..., neurons]``."""
    self_only_attention: Tensor | None = None
    """``[..., 1]``, 0..1."""
    intercept: Tensor | None = None
    """``[..., hidden_size]``."""


class SteeringTable:
    """Table of factors with a row per steering in use. Row 0 is exactly the identity and is never freed.

    Sequences with equal steerings share a row, which is freed when the last one releases it.
    """

    def __init__(self, sizes: Sizes, dtype: torch.dtype) -> None:
        self._sizes = sizes
        self._dtype = dtype
        self._effects: dict[int, Effect] = {}
        self._rows: dict[_Key, int] = {(): 0}
        self._users: dict[int, int] = {}
        self._free: list[int] = []
        self._capacity = 8
        self._heads: dict[int, Tensor] = {}
        self._neurons: dict[int, Tensor] = {}
        self._self_only_attention = torch.zeros(self._capacity, 1, dtype=dtype)
        self._intercept: Tensor | None = None
        self._gathered: tuple[tuple[Any, ...], StepFactors | None] | None = None

    def acquire(self, steering: Steering) -> int:
        """Return the row of ``steering``, which is added if it is new. Release it with :meth:`release`.

        Raises:
            GateError: the steering is gated, which one row cannot be: use its ``closed`` or ``opened`` part.
        """
        key = tuple(sorted(applied.key for applied in steering if applied.strength != 0))
        row = self._rows.get(key)
        if row is None:
            _refuse_gate(steering)
            effect = effect_of(steering, self._sizes)  # first, because it may raise
            row = self._free.pop() if self._free else 1 + len(self._effects)
            self._write(row, effect)
            self._rows[key] = row
        if row:
            self._users[row] = self._users.get(row, 0) + 1
        return row

    def release(self, row: int) -> None:
        """Release one use of ``row``; the last release frees it."""
        if row == 0:
            return
        self._users[row] -= 1
        if self._users[row] == 0:
            del self._users[row]
            key = next(key for key, owner in self._rows.items() if owner == row)
            del self._rows[key]
            self._erase(row)
            self._free.append(row)

    def self_only_attention(self, row: int) -> float:
        """Return the share of self-only attention of ``row``, 0..1."""
        return self._effects[row].self_only_attention if row else 0.0

    def gather(
        self, rows: Sequence[int], shape: tuple[int, int], tokens_per_layer: Sequence[int] | None = None
    ) -> StepFactors | None:
        """Return the factors of ``rows``, with leading dimensions ``shape``; None when no row is steered.

        ``tokens_per_layer`` is the number of rows, from the first on, that each layer computes; None for all. The
        result is cached, since the rows are mostly the same step after step.
        """
        asked = (tuple(rows), shape, tokens_per_layer)
        if self._gathered is None or self._gathered[0] != asked:
            self._gathered = asked, self._gather(rows, shape, tokens_per_layer)
        return self._gathered[1]

    def _gather(
        self, rows: Sequence[int], shape: tuple[int, int], tokens_per_layer: Sequence[int] | None
    ) -> StepFactors | None:
        steered = [self._effects[row] for row in set(rows) if row]
        if not steered:
            return None
        index = torch.tensor(rows)

        def pick(table: Tensor) -> Tensor:
            return table[index].view(*shape, -1)

        def pick_layers(tables: dict[int, Tensor], layers: Iterable[int]) -> dict[int, Tensor]:
            picked = {layer: pick(tables[layer]) for layer in layers}
            return (
                picked
                if tokens_per_layer is None
                else {layer: table[:, : tokens_per_layer[layer]] for layer, table in picked.items()}
            )

        heads = pick_layers(self._heads, _union(effect.heads for effect in steered))
        return StepFactors(
            heads={layer: table.repeat_interleave(self._sizes.head_dim, dim=-1) for layer, table in heads.items()},
            neurons=pick_layers(self._neurons, _union(effect.neurons for effect in steered)),
            self_only_attention=pick(self._self_only_attention)
            if any(e.self_only_attention for e in steered)
            else None,
            intercept=(
                pick(self._intercept)
                if self._intercept is not None and any(e.intercept is not None for e in steered)
                else None
            ),
        )

    def _write(self, row: int, effect: Effect) -> None:
        self._gathered = None
        if row >= self._capacity:
            self._grow()
        for layer, factors in effect.heads.items():
            self._layer(self._heads, layer, self._sizes.heads)[row] = factors.to(self._dtype)
        for layer, factors in effect.neurons.items():
            self._layer(self._neurons, layer, self._sizes.neurons)[row] = factors.to(self._dtype)
        self._self_only_attention[row] = effect.self_only_attention
        if effect.intercept is not None:
            if self._intercept is None:
                self._intercept = torch.zeros(self._capacity, self._sizes.hidden_size, dtype=self._dtype)
            self._intercept[row] = effect.intercept.to(self._dtype)
        self._effects[row] = effect

    def _erase(self, row: int) -> None:
        self._gathered = None
        effect = self._effects[row]
        for layer in effect.heads:
            self._heads[layer][row] = 1
        for layer in effect.neurons:
            self._neurons[layer][row] = 1
        self._self_only_attention[row] = 0
        if self._intercept is not None:
            self._intercept[row] = 0

    def _layer(self, tables: dict[int, Tensor], layer: int, width: int) -> Tensor:
        if layer not in tables:
            tables[layer] = torch.ones(self._capacity, width, dtype=self._dtype)
        return tables[layer]

    def _grow(self) -> None:
        def doubled(table: Tensor, fill: float) -> Tensor:
            return torch.cat([table, torch.full_like(table, fill)])

        self._heads = {layer: doubled(table, 1) for layer, table in self._heads.items()}
        self._neurons = {layer: doubled(table, 1) for layer, table in self._neurons.items()}
        self._self_only_attention = doubled(self._self_only_attention, 0)
        self._intercept = None if self._intercept is None else doubled(self._intercept, 0)
        self._capacity *= 2


def _refuse_gate(steering: Steering) -> None:
    if steering.gate is not None:
        gated = [applied.profile.name for applied in steering if applied.gate is not None]
        raise GateError(f"{', '.join(gated)}: a gate chooses between two passes, and this is one; split the steering")


def _union(layers: Iterable[Iterable[int]]) -> list[int]:
    return sorted({layer for some in layers for layer in some})
