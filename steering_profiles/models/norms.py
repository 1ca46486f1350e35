"""Norms that stand between a component and the residual stream, or between the residual stream and the unembedding.

A norm is linear but for the scale that it has on its input. Frozen at that scale, it can be applied to the parts of
its input one by one: what comes out of all parts together, and its bias, is what comes out of the whole.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

NormKind = Literal["layer", "rms", "rms of 1 + weight"]
"""How a family's norms are computed: whether the mean is subtracted, and what the gain is."""


@dataclass(frozen=True, eq=False)
class Norm:
    """One norm of a model over the residual stream's hidden_size."""

    module: nn.Module
    kind: NormKind
    hidden_size: int

    @property
    def gain(self) -> Tensor:
        """Factor of each dimension besides the scale, ``[hidden_size]``; ones where the norm has no weight."""
        weight = self._parameter("weight")
        if weight is None:
            return torch.ones(self.hidden_size)
        return 1 + weight if self.kind == "rms of 1 + weight" else weight

    @property
    def bias(self) -> Tensor | None:
        """``[hidden_size]``: what is added whatever the input."""
        return self._parameter("bias")

    def scale(self, inputs: Tensor) -> Tensor:
        """Return what all dimensions of each of ``inputs``, ``[..., hidden_size]``, are multiplied by: ``[..., 1]``."""
        precise = inputs.double()
        if self.kind == "layer":
            precise = precise - precise.mean(dim=-1, keepdim=True)
        return (precise.square().mean(dim=-1, keepdim=True) + self._epsilon).rsqrt()

    def linear(self, parts: Tensor) -> Tensor:
        """Return what comes of ``parts`` of an input, ``[..., hidden_size]``, at a scale of 1 and without the bias."""
        if self.kind == "layer":
            parts = parts - parts.mean(dim=-1, keepdim=True)
        return parts * self.gain.to(parts)

    def _parameter(self, name: str) -> Tensor | None:
        with align_module_device(self.module):  # fetched, where accelerate keeps it elsewhere until it is used
            parameter = getattr(self.module, name, None)
        return parameter if isinstance(parameter, Tensor) else None

    @property
    def _epsilon(self) -> float:
        for name in ("variance_epsilon", "eps"):
            if hasattr(self.module, name):
                return float(getattr(self.module, name))
        raise TypeError(f"{type(self.module).__name__} does not say its epsilon")
