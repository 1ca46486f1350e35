"""Steering table: a row of factors for each distinct steering in use, gathered once per step for a batch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from steering_profiles.composition import Steering
from steering_profiles.errors import ConditionError, GateError
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


@dataclass(frozen=True)
class SteeredParts:
    """The parts of a model that some rows steer."""

    heads: tuple[int, ...] = ()
    """Layers with steered heads."""
    neurons: tuple[int, ...] = ()
    """Layers with steered neurons."""
    self_only_attention: bool = False
    intercept: bool = False

    def __bool__(self) -> bool:
        return self != _NOTHING


_NOTHING = SteeredParts()


@dataclass
class FactorTables:
    """The factors of all rows of a table. A layer that no row has steered yet is missing."""

    self_only_attention: Tensor
    """``[rows, 1]``"""
    heads: dict[int, Tensor] = field(default_factory=dict)
    """Per layer ``[rows, heads]``."""
    neurons: dict[int, Tensor] = field(default_factory=dict)
    """Per layer ``[rows, neurons]``."""
    intercept: Tensor | None = None
    """``[rows, hidden_size]``"""

    @property
    def parts(self) -> SteeredParts:
        """The parts that there are factors for."""
        return SteeredParts(tuple(sorted(self.heads)), tuple(sorted(self.neurons)), True, self.intercept is not None)

    def gather(self, parts: SteeredParts, rows: Tensor, shape: tuple[int, int], head_dim: int) -> StepFactors:
        """Return the factors of ``parts`` for ``rows``, ``[tokens]``, with leading dimensions ``shape``."""

        def pick(table: Tensor) -> Tensor:
            return table[rows].view(*shape, -1)

        return StepFactors(
            heads={layer: pick(self.heads[layer]).repeat_interleave(head_dim, dim=-1) for layer in parts.heads},
            neurons={layer: pick(self.neurons[layer]) for layer in parts.neurons},
            self_only_attention=pick(self.self_only_attention) if parts.self_only_attention else None,
            intercept=pick(self.intercept) if self.intercept is not None and parts.intercept else None,
        )

    def map(self, change: Callable[[Tensor, float], Tensor]) -> "FactorTables":
        """Return tables of ``change(table, identity)``, where the factor ``identity`` changes nothing."""
        return FactorTables(
            self_only_attention=change(self.self_only_attention, 0),
            heads={layer: change(table, 1) for layer, table in self.heads.items()},
            neurons={layer: change(table, 1) for layer, table in self.neurons.items()},
            intercept=None if self.intercept is None else change(self.intercept, 0),
        )


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
        self.factors = FactorTables(torch.zeros(self._capacity, 1, dtype=dtype))
        """The factors of all rows, on the CPU."""
        self.version = 0
        """Grows with every change of :attr:`factors`."""
        self._gathered: tuple[tuple[Any, ...], StepFactors | None] | None = None

    def acquire(self, steering: Steering) -> int:
        """Return the row of ``steering``, which is added if it is new. Release it with :meth:`release`.

        Raises:
            GateError: the steering is gated, which one row cannot be: use its ``closed`` or ``opened`` part.
            ConditionError: the steering has conditions, and one row is for one position: use :class:`.TokenRows`.
        """
        key = tuple(sorted(applied.key for applied in steering if applied.strength != 0))
        row = self._rows.get(key)
        if row is None:
            _refuse_gate(steering)
            require_no_conditions(steering)
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

    def parts(self, rows: Iterable[int]) -> SteeredParts:
        """Return the parts of the model that ``rows`` steer."""
        steered = [self._effects[row] for row in set(rows) if row]
        return SteeredParts(
            heads=_union(effect.heads for effect in steered),
            neurons=_union(effect.neurons for effect in steered),
            self_only_attention=any(effect.self_only_attention for effect in steered),
            intercept=any(effect.intercept is not None for effect in steered),
        )

    def _gather(
        self, rows: Sequence[int], shape: tuple[int, int], tokens_per_layer: Sequence[int] | None
    ) -> StepFactors | None:
        if not any(rows):
            return None
        gathered = self.factors.gather(self.parts(rows), torch.tensor(rows), shape, self._sizes.head_dim)
        if tokens_per_layer is None:
            return gathered
        return replace(
            gathered,
            heads={layer: table[:, : tokens_per_layer[layer]] for layer, table in gathered.heads.items()},
            neurons={layer: table[:, : tokens_per_layer[layer]] for layer, table in gathered.neurons.items()},
        )

    def _write(self, row: int, effect: Effect) -> None:
        self._changed()
        if row >= self._capacity:
            self._grow()
        factors = self.factors
        for layer, scales in effect.heads.items():
            self._layer(factors.heads, layer, self._sizes.heads)[row] = scales.to(self._dtype)
        for layer, scales in effect.neurons.items():
            self._layer(factors.neurons, layer, self._sizes.neurons)[row] = scales.to(self._dtype)
        factors.self_only_attention[row] = effect.self_only_attention
        if effect.intercept is not None:
            if factors.intercept is None:
                factors.intercept = torch.zeros(self._capacity, self._sizes.hidden_size, dtype=self._dtype)
            factors.intercept[row] = effect.intercept.to(self._dtype)
        self._effects[row] = effect

    def _erase(self, row: int) -> None:
        self._changed()
        effect, factors = self._effects[row], self.factors
        for layer in effect.heads:
            factors.heads[layer][row] = 1
        for layer in effect.neurons:
            factors.neurons[layer][row] = 1
        factors.self_only_attention[row] = 0
        if factors.intercept is not None:
            factors.intercept[row] = 0

    def _changed(self) -> None:
        self._gathered = None
        self.version += 1

    def _layer(self, tables: dict[int, Tensor], layer: int, width: int) -> Tensor:
        if layer not in tables:
            tables[layer] = torch.ones(self._capacity, width, dtype=self._dtype)
        return tables[layer]

    def _grow(self) -> None:
        self.factors = self.factors.map(lambda table, identity: torch.cat([table, torch.full_like(table, identity)]))
        self._capacity *= 2


def _refuse_gate(steering: Steering) -> None:
    if steering.gate is not None:
        gated = [applied.profile.name for applied in steering if applied.gate is not None]
        raise GateError(f"{', '.join(gated)}: a gate chooses between two passes, and this is one; split the steering")


def require_no_conditions(steering: Steering) -> None:
    """Check that ``steering`` is the same at every position.

    Raises:
        ConditionError: a profile of it has a condition.
    """
    if steering.conditions:
        conditional = dict.fromkeys(part.profile.name for part in steering.parts if part.condition is not None)
        raise ConditionError(
            f"{', '.join(conditional)}: a condition is tested token by token; the tokens are not known"
        )


def _union(layers: Iterable[Iterable[int]]) -> tuple[int, ...]:
    return tuple(sorted({layer for some in layers for layer in some}))
