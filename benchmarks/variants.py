"""A running engine with parts computed in other ways, not batch invariant, to measure what invariance and float32 cost.

Each is a context manager: inside it the engine computes that way, and afterwards as before.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_server.engines.local import fused, kernels, torch_attention
from steering_server.engines.local.engine import Engine
from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.prepacking import PrepackedLinear
from steering_server.engines.local.ragged import RaggedBatch
from steering_server.engines.local.runner import Runner

Variant = Callable[[], AbstractContextManager[object]]


def padded_for_speed(engine: Engine) -> Variant:
    """Pad small inputs only as far as that saves time, as with batch invariance off."""
    return lambda: _padded(engine._runner, engine._runner._quickest_padding)


def no_padding(engine: Engine) -> Variant:
    """Multiply as many rows as there are tokens."""
    return lambda: _padded(engine._runner, 1)


@contextmanager
def _padded(runner: Runner, tokens: int) -> Iterator[None]:
    before = [linear.min_tokens for linear in runner.linears.all]
    with patch.object(runner, "_quickest_padding", tokens):
        runner.pad_to([1] * len(before))
        yield
    runner.pad_to(before)


def pytorch_attention(engine: Engine) -> Variant:
    """Attend by PyTorch's kernels."""
    return lambda: patch.object(fused, "attend", _attend)


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
    product = PrepackedLinear([module], shared=True)
    # The sums over the vocabulary are compiled for float32.
    return lambda hidden: product(hidden).to(torch.float32)


def _attend(query: Tensor, key: Tensor, value: Tensor, batch: RaggedBatch, layer: int, options: ScoreOptions) -> Tensor:
    cache = batch.kv_cache.layers[layer]
    kernels.write_cache(key, value, cache.keys, cache.values, batch.slots, batch.positions, batch.cache_sources(layer))
    return torch_attention.attend(query.transpose(0, 1), cache, batch, layer, options)
