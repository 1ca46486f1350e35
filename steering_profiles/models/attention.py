"""Attention weights of a running model, whichever implementation of attention it has."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from steering_profiles.errors import ModelError
from steering_profiles.models.loading import LoadedModel


@contextmanager
def attention_weights(
    loaded: LoadedModel, layers: Iterable[int], take: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Call ``take(layer, weights)`` for each of ``layers`` in every forward pass made inside this context.

    ``weights`` is ``[batch, heads, queries, keys]``. Whichever attention implementation the model has, it has again
    afterwards.

    Raises:
        ModelError: inside, by a forward pass: the model does not give out its attention weights.
    """
    heads = loaded.anatomy.sizes.heads

    def record(layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, Tensor) or weights.ndim != 4 or weights.shape[1] != heads:
            raise ModelError(f"{loaded.name}: layer {layer} does not give out attention weights per head and token")
        take(layer, weights)

    # Not output_attentions, which keeps the weights of every layer at once: gigabytes for a long prompt. An attention
    # module owns the projection of its heads' outputs, and returns its weights beside its output.
    path = loaded.anatomy.family.head_output.rpartition(".")[0]
    with _eager_attention(loaded.model):
        handles = [
            loaded.anatomy.layers[layer].block.get_submodule(path).register_forward_hook(partial(record, layer))
            for layer in layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Have ``model`` compute attention in the one way that gives out weights; on leaving, it is as it was."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        # Straight to the configs: set_attn_implementation refuses models that choose for themselves by the config.
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        # Straight to the configs: set_attn_implementation turns None into a default, and refuses what is not
        # installed although the model may have been loaded with it.
        for config, implementation in before:
            config._attn_implementation = implementation
