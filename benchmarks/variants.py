"""A running engine with parts computed in other ways, not batch invariant, to measure what invariance and float32 cost.

Each is a context manager: inside it the engine computes that way, and afterwards as before.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_server.engines.local import fused, kernels, torch_attention
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.huge_pages import HugePages
from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.prepacking import OneDNNWeight, PrepackedLinear
from steering_server.engines.local.ragged import RaggedBatch

Variant = Callable[[], AbstractContextManager[object]]


def one_call_an_operator(engine: Engine) -> Variant:
    """Call every operator of a layer by itself, without which the next two have no effect."""
    model = engine._runner._fused
    if model is None:
        raise TypeError("the engine runs transformers' modules")
    return lambda: patch.object(model, "in_one_call", False)


def onednn_products(engine: Engine) -> Variant:
    """Multiply by oneDNN's kernels, as many rows as there are tokens."""
    linears = engine._runner.linears.all
    weights = [OneDNNWeight(linear.weight.unpacked()) for linear in linears]

    @contextmanager
    def changed() -> Iterator[None]:
        with ExitStack() as stack:
            for linear, weight in zip(linears, weights, strict=True):
                stack.enter_context(patch.object(linear, "weight", weight))
            yield

    return changed


def pytorch_attention() -> AbstractContextManager[object]:
    """Let every engine of this process attend by PyTorch's kernels."""
    return patch.object(fused, "attend", _attend)


def bfloat16_unembedding(engine: Engine, loaded: LoadedModel) -> Variant:
    """Compute logits by a prepacked linear layer, whose results are bfloat16."""
    logits_of = _bfloat16_logits(loaded)
    return lambda: patch.object(engine._runner, "_unembedding", logits_of)


def unembedding_alone(loaded: LoadedModel, *, in_float32: bool) -> Callable[[Tensor], Tensor]:
    """Return the function from hidden states to float32 logits, as the engine has it or by a bfloat16 linear layer."""
    if in_float32:
        weight = loaded.anatomy.unembedding.weight
        if not isinstance(weight, Tensor):
            raise TypeError("the unembedding has no weight")
        return lambda hidden: kernels.unembed(hidden, weight)
    return _bfloat16_logits(loaded)


def _bfloat16_logits(loaded: LoadedModel) -> Callable[[Tensor], Tensor]:
    module = loaded.anatomy.unembedding
    if not isinstance(module, nn.Linear):
        raise TypeError("the unembedding is not a linear layer")
    weight = PrepackedLinear([module], HugePages(), shared=True)
    # The sums over the vocabulary are compiled for float32.
    return lambda hidden: weight(hidden).to(torch.float32)


def _attend(query: Tensor, key: Tensor, value: Tensor, batch: RaggedBatch, layer: int, options: ScoreOptions) -> Tensor:
    cache = batch.kv_cache.layers[layer]
    kernels.write_cache(key, value, cache.keys, cache.values, batch.slots, batch.positions, batch.cache_sources(layer))
    return torch_attention.attend(query.transpose(0, 1), cache, batch, layer, options)
