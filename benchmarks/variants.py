"""The engine with parts computed in ways that are not batch invariant, to measure what invariance and float32 cost.

A variant is made by replacing functions of the engine in this process, before the engine is created.
"""

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_server.engines.local import fused, kernels, runner, torch_attention
from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.prepacking import PrepackedLinear
from steering_server.engines.local.ragged import RaggedBatch
from steering_server.engines.local.unembedding import Float32Unembedding


def pytorch_attention() -> None:
    """Let fused models attend by PyTorch's kernels."""
    patch.object(fused, "attend", _attend).start()


def bfloat16_unembedding() -> None:
    """Compute logits by a prepacked linear layer, whose results are bfloat16."""
    patch.object(runner, "float32_unembedding", lambda loaded, _: _Bfloat16Unembedding(loaded)).start()


def no_compiled_kernels() -> None:
    """Run as where the package was built without a C compiler: transformers' modules and PyTorch's kernels."""
    patch.object(kernels, "UNAVAILABLE", "they are left out to be compared").start()


def unembedding_alone(loaded: LoadedModel, *, in_float32: bool) -> Callable[[Tensor], Tensor]:
    """Return the function from hidden states to float32 logits, as the engine has it or by a bfloat16 linear layer."""
    if in_float32:
        weight = loaded.anatomy.unembedding.weight
        if not isinstance(weight, Tensor):
            raise TypeError("the unembedding has no weight")
        return lambda hidden: kernels.unembed(hidden, weight)
    return _Bfloat16Unembedding(loaded)


class _Bfloat16Unembedding(Float32Unembedding):
    def __init__(self, loaded: LoadedModel) -> None:
        module = loaded.anatomy.unembedding
        if not isinstance(module, nn.Linear):
            raise TypeError("the unembedding is not a linear layer")
        self._product = PrepackedLinear([module], shared=True)
        super().__init__(module)

    def __call__(self, hidden: Tensor) -> Tensor:
        return self._product(hidden).to(torch.float32)  # the sums over the vocabulary are compiled for float32


def _attend(query: Tensor, key: Tensor, value: Tensor, batch: RaggedBatch, layer: int, options: ScoreOptions) -> Tensor:
    cache = batch.kv_cache.layers[layer]
    kernels.write_cache(key, value, cache.keys, cache.values, batch.slots, batch.positions, batch.cache_sources(layer))
    return torch_attention.attend(query.transpose(0, 1), cache, batch, layer, options)
