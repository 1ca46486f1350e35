"""A copy of a steering table's factors on a device, at addresses that stay, for captured kernels to read."""

import torch
from torch import Tensor

from steering_profiles.steering.table import FactorTables, SteeredParts, SteeringTable, StepFactors


class DeviceTable:
    """Follows a :class:`SteeringTable`. Kernels that were captured on it read its rows as they are at each replay."""

    def __init__(self, table: SteeringTable, head_dim: int, device: torch.device) -> None:
        self._table = table
        self._head_dim = head_dim
        self._device = device
        self._version = -1
        self._factors: FactorTables | None = None

    @property
    def parts(self) -> SteeredParts:
        """The parts of the model that :meth:`gather` has factors for."""
        return SteeredParts() if self._factors is None else self._factors.parts

    def refresh(self) -> bool:
        """Copy the table if it has changed; return whether addresses have, so that captured kernels are out of date."""
        if self._version == self._table.version:
            return False
        self._version = self._table.version
        source, mine = self._table.factors, self._factors
        if (
            mine is None
            or mine.parts != source.parts
            or len(mine.self_only_attention) != len(source.self_only_attention)
        ):
            self._factors = source.map(lambda table, _: table.to(self._device, copy=True))
            return True
        mine.self_only_attention.copy_(source.self_only_attention)
        for layer, heads in source.heads.items():
            mine.heads[layer].copy_(heads)
        for layer, neurons in source.neurons.items():
            mine.neurons[layer].copy_(neurons)
        if mine.intercept is not None and source.intercept is not None:
            mine.intercept.copy_(source.intercept)
        return False

    def gather(self, rows: Tensor) -> StepFactors:
        """Return the factors of ``rows``, ``[tokens]`` on the device, for a ragged batch of one token each.

        Raises:
            RuntimeError: :meth:`refresh` was never called.
        """
        if self._factors is None:
            raise RuntimeError("the table was not copied yet")
        return self._factors.gather(self._factors.parts, rows, (1, len(rows)), self._head_dim)
