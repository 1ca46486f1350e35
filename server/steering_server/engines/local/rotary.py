"""Cosines and sines of rotary embeddings by position, computed once."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PretrainedConfig

VECTOR = 32
"""Elements that PyTorch's pointwise operators compute at a time, at most."""
_BY_LENGTH = ("dynamic", "longrope")


def rotary_by_length(config: PretrainedConfig) -> list[str]:
    """Return the kinds of a model's rotary embeddings that depend on the longest sequence of a batch."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = {kind for part in (rope, *rope.values()) if isinstance(part, dict) and (kind := part.get("rope_type"))}
    return sorted(kinds & set(_BY_LENGTH))


class Rotation:
    """The rotary embeddings of one model, for positions below ``length``."""

    def __init__(self, module: nn.Module, config: PretrainedConfig, dtype: torch.dtype, length: int) -> None:
        """Use a ``module`` of transformers, which returns cosines and sines of positions."""
        self._module = module
        self._dtype = dtype
        self._tables = None if rotary_by_length(config) else self._computed(torch.arange(length))

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines at ``positions``, ``[tokens]``: ``[tokens or more, rotary dimensions]`` each."""
        if self._tables is None:
            return self._computed(positions)
        cos, sin = self._tables
        return cos[positions], sin[positions]

    @torch.no_grad()
    def _computed(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        # PyTorch computes the last elements of a tensor otherwise than the rest, unless they fill a vector.
        filled = pad(positions, (0, -len(positions) % VECTOR))
        cos, sin = self._module(torch.empty(0, dtype=self._dtype), filled.unsqueeze(0))
        return cos[0].contiguous(), sin[0].contiguous()
