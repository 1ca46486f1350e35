"""Steering tables of one worker: a row of factors per steering, and the row of each token of a step.

All tensors are made at start and stay where they are, so that compiled and captured graphs read what is written later.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from steering_profiles.composition import Steering
from steering_profiles.schema import Profile
from steering_profiles.steering.effects import Effect

IDENTITY = 0
"""Row that changes nothing, of unsteered requests and of padding."""

Kind = Literal["heads", "neurons", "self_only_attention", "intercept"]
_UNCHANGED: dict[Kind, float] = {"heads": 1.0, "neurons": 1.0, "self_only_attention": 0.0, "intercept": 0.0}

_Key = tuple[tuple[str, float], ...]


@dataclass(frozen=True, order=True)
class Part:
    """Something in one layer that profiles change."""

    layer: int
    kind: Kind

    def __str__(self) -> str:
        return f"{self.kind} of layer {self.layer}"


def parts_of(profiles: Iterable[Profile], layers: int) -> tuple[Part, ...]:
    """Return all parts that some of ``profiles`` change, of a model with so many layers."""
    parts: set[Part] = set()
    for profile in profiles:
        parts |= {Part(scale.layer, "heads") for scale in profile.heads}
        parts |= {Part(scale.layer, "neurons") for scale in profile.neurons}
        for final_layer in (profile.final_layer, *(one.unconditional for one in profile.final_layers)):
            if final_layer.self_only_attention:
                parts.add(Part(layers - 1, "self_only_attention"))
            if final_layer.intercept_scale:
                parts.add(Part(layers - 1, "intercept"))
    return tuple(sorted(parts))


@dataclass(frozen=True)
class Share:
    """Part of a layer's factors that this worker has, of the workers that share the layer (tensor parallelism)."""

    columns: slice
    full: int
    """Number of factors over all workers."""

    @property
    def width(self) -> int:
        """Number of factors here."""
        return len(range(*self.columns.indices(self.full)))


class SteeringTables:
    """A table ``[rows, width]`` per part, in the dtype that the model computes in."""

    def __init__(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        """Make no table yet; ``rows`` is the number of rows of each, the identity included."""
        self.rows = rows
        self._dtype = dtype
        self._device = device
        self._tables: dict[Part, Tensor] = {}
        self._shares: dict[Part, Share] = {}

    def add(self, part: Part, share: Share) -> Tensor:
        """Add a table for ``part``, all rows the identity, and return it."""
        table = torch.full((self.rows, share.width), _UNCHANGED[part.kind], dtype=self._dtype, device=self._device)
        self._tables[part], self._shares[part] = table, share
        return table

    @property
    def tables(self) -> Mapping[Part, Tensor]:
        """The tables by part."""
        return self._tables

    def write(self, row: int, effect: Effect) -> None:
        """Write the factors of ``effect`` to a row of every table."""
        for part, table in self._tables.items():
            values = _values(part, effect)
            if values is None:
                table[row].fill_(_UNCHANGED[part.kind])
            else:
                table[row].copy_(values[self._shares[part].columns].to(self._dtype))


class RowCache:
    """Rows by steering. The one used longest ago gives way, of those that the step does not need.

    There are as many rows as a step can have steerings, so that it never lacks one, and neither the end nor the
    preemption of a sequence has to be observed.
    """

    def __init__(self, rows: int, write: Callable[[int, Steering], None]) -> None:
        """Use rows ``1`` to ``rows``; ``write`` writes the factors of a steering to one."""
        self._write = write
        self._free = list(range(rows, 0, -1))
        self._rows: dict[_Key, int] = {}  # in the order of their last use

    def rows_of(self, steerings: Sequence[Steering]) -> list[int]:
        """Return the row of each steering of one step."""
        keys = [key_of(steering) for steering in steerings]
        for key in keys:
            if key in self._rows:
                self._rows[key] = self._rows.pop(key)  # now the last
        step = set(keys)
        for key, steering in zip(keys, steerings, strict=True):
            if key and key not in self._rows:
                row = self._free.pop() if self._free else self._take(step)
                self._write(row, steering)
                self._rows[key] = row
        return [self._rows[key] if key else IDENTITY for key in keys]

    def _take(self, step: set[_Key]) -> int:
        oldest = next(key for key in self._rows if key not in step)
        return self._rows.pop(oldest)


class TokenRows:
    """The row of each token of a step, on the device: row 0 for padding."""

    def __init__(self, tokens: int, device: torch.device) -> None:
        """Have room for ``tokens`` tokens, as many as a step can have."""
        self.buffer = torch.zeros(tokens, dtype=torch.int64, device=device)
        """``[tokens]``, read by the steered modules."""
        self.dummy_row = IDENTITY
        """Row of all tokens of a dummy step, which vLLM runs to warm up and to capture graphs."""
        self._staged = torch.zeros(tokens, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._filled = 0

    def fill(self, rows: Sequence[int], counts: np.ndarray) -> None:
        """Set the rows of a step: each is that of so many tokens, one after the other."""
        each = np.repeat(np.asarray(rows, dtype=np.int64), counts)
        tokens = len(each)
        changed = max(tokens, self._filled)
        self._staged[:tokens] = torch.from_numpy(each)
        self._staged[tokens:changed] = IDENTITY
        self.buffer[:changed].copy_(self._staged[:changed], non_blocking=True)
        self._filled = tokens

    def fill_dummy(self) -> None:
        """Set the rows of a dummy step."""
        self.buffer.fill_(self.dummy_row)
        self._filled = len(self.buffer)


def key_of(steering: Steering) -> _Key:
    """Return content hash and strength of every profile that changes something."""
    return tuple(applied.key for applied in steering if applied.strength != 0)


def _values(part: Part, effect: Effect) -> Tensor | None:
    """Return the factors of a part over all workers; None where they change nothing."""
    if part.kind == "heads":
        return effect.heads.get(part.layer)
    if part.kind == "neurons":
        return effect.neurons.get(part.layer)
    if part.kind == "self_only_attention":
        return torch.tensor([effect.self_only_attention], dtype=torch.float64)
    return effect.intercept


def fingerprint(tables: SteeringTables) -> Hashable:
    """Return what the tables are, for the key of a cache of compiled code."""
    return tuple((str(part), tuple(table.shape), str(table.dtype)) for part, table in tables.tables.items())
