"""Attention implementations of a model, and access to its attention weights."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from steering_profiles.errors import ModelError
from steering_profiles.models.anatomy import Anatomy
from steering_profiles.models.forwards import replaced_forward
from steering_profiles.models.loading import LoadedModel


@contextmanager
def attention_weights(
    loaded: LoadedModel, layers: Iterable[int], take: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Call ``take(layer, weights)`` for each of ``layers`` in every forward pass made inside this context.

    ``weights`` is ``[batch, heads, queries, keys]``. The model's attention implementation is restored afterwards.

    Raises:
        ModelError: raised by a forward pass: the model does not return its attention weights.
    """
    heads = loaded.anatomy.sizes.heads

    def record(layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, Tensor) or weights.ndim != 4 or weights.shape[1] != heads:
            raise ModelError(f"{loaded.name}: layer {layer} does not return attention weights per head and token")
        take(layer, weights)

    # output_attentions would keep the weights of all layers at once, which takes gigabytes for a long prompt. Attention
    # modules return their weights beside their output.
    with _eager_attention(loaded.model):
        handles = [loaded.anatomy.attention(layer).register_forward_hook(partial(record, layer)) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def attention_by(model: PreTrainedModel, anatomy: Anatomy, implementation: str) -> Iterator[None]:
    """Set the attention of ``model`` to ``implementation``, a name in transformers' attention interface.

    It applies inside this context. Models that do not use the interface need a family with an ``attention_forward``.
    """
    before = model.config._attn_implementation
    forward = anatomy.family.attention_forward
    if forward is None:
        model.set_attn_implementation(implementation)
        try:
            yield
        finally:
            model.set_attn_implementation(before)
        return
    with ExitStack() as stack:
        for layer in range(anatomy.sizes.layers):
            module = anatomy.attention(layer)
            stack.enter_context(replaced_forward(module, MethodType(forward, module), inside_hooks=True))
        # Set in the config: set_attn_implementation refuses such a model.
        model.config._attn_implementation = implementation
        try:
            yield
        finally:
            model.config._attn_implementation = before


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Set the attention of ``model`` to the eager implementation, the only one that returns weights, and restore it."""
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        # Set in the configs: set_attn_implementation refuses models that choose their attention by the config.
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        # Set in the configs: set_attn_implementation turns None into a default, and refuses an implementation that is
        # not installed, although the model may have been loaded with it.
        for config, implementation in before:
            config._attn_implementation = implementation
