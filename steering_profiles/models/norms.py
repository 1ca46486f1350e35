"""Norms between components and the residual stream, and between the residual stream and the unembedding.

A norm is linear apart from its scale, which depends on the input. With the scale fixed it can be applied to the parts
of an input separately: the results, summed with the bias, are the output for the whole input.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

NormKind = Literal["layer", "rms", "rms of 1 + weight"]
"""Kinds of norms: layer norm, or RMS norm with a gain of the weight or of 1 + weight."""


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm over the hidden size."""

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
        """Bias, ``[hidden_size]``; None if the norm has none."""
        return self._parameter("bias")

    def scale(self, inputs: Tensor) -> Tensor:
        """Return the scale of the norm on each of ``inputs``, ``[..., hidden_size]``: ``[..., 1]``, float64."""
        precise = inputs.double()
        if self.kind == "layer":
            precise = precise - precise.mean(dim=-1, keepdim=True)
        return (precise.square().mean(dim=-1, keepdim=True) + self._epsilon).rsqrt()

    def linear(self, parts: Tensor) -> Tensor:
        """Return the output for ``parts`` of an input, ``[..., hidden_size]``, at scale 1 and without the bias."""
        if self.kind == "layer":
            parts = parts - parts.mean(dim=-1, keepdim=True)
        return parts * self.gain.to(parts)

    def _parameter(self, name: str) -> Tensor | None:
        with align_module_device(self.module):  # fetches a parameter that accelerate has offloaded
            parameter = getattr(self.module, name, None)
        return parameter if isinstance(parameter, Tensor) else None

    @property
    def _epsilon(self) -> float:
        for name in ("variance_epsilon", "eps"):
            if hasattr(self.module, name):
                return float(getattr(self.module, name))
        raise TypeError(f"{type(self.module).__name__} has no known attribute for epsilon")
