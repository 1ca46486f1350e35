"""Where attention heads look: their attention weights on one prompt."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering_profiles.errors import ModelError
from steering_profiles.fitting.components import Component
from steering_profiles.models import LoadedModel
from steering_profiles.tasks.task import Example

_Record = Callable[[int, nn.Module, tuple[Any, ...], Any], None]


@dataclass(frozen=True, eq=False)
class HeadAttention:
    """Where one head looks, from each token of a prompt."""

    component: Component
    tokens: tuple[str, ...]
    weights: np.ndarray[Any, np.dtype[np.float32]]
    """``[tokens, tokens]``: row ``i`` is how token ``i`` spreads its attention, a sum of 1 over tokens 0..i."""


@torch.inference_mode()
def attention_patterns(
    loaded: LoadedModel, heads: Sequence[Component], example: Example, most: int = 6
) -> list[HeadAttention]:
    """Run ``example``'s prompt through the plain model and return where the first ``most`` of ``heads`` look.

    Neurons among ``heads`` are passed over: they do not attend. Whichever attention implementation the model has, it
    has again afterwards.

    Raises:
        ModelError: the model has no such head, or does not give out its attention weights.
    """
    shown = list(dict.fromkeys(head for head in heads if head.kind == "head"))[:most]
    wanted = _by_layer(loaded, shown)
    length = len(example.prompt)
    weights: dict[Component, np.ndarray[Any, np.dtype[np.float32]]] = {}

    def record(layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(given, Tensor) or given.shape != (1, loaded.anatomy.sizes.heads, length, length):
            raise ModelError(f"{loaded.name}: layer {layer} does not give out attention weights per head and token")
        for head in wanted[layer]:
            weights[head] = given[0, head.index].float().cpu().numpy()

    with _eager_attention(loaded.model), _hooked(loaded, wanted, record):
        tokens = torch.tensor([example.prompt], device=loaded.input_device)
        loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    texts = tuple(str(loaded.tokenizer.decode([token], clean_up_tokenization_spaces=False)) for token in example.prompt)
    return [HeadAttention(head, texts, weights[head]) for head in shown]


def _by_layer(loaded: LoadedModel, heads: Sequence[Component]) -> dict[int, list[Component]]:
    sizes = loaded.anatomy.sizes
    by_layer: dict[int, list[Component]] = {}
    for head in heads:
        if not (0 <= head.layer < sizes.layers and 0 <= head.index < sizes.heads):
            raise ModelError(f"there is no head {head}; {loaded.name} has {sizes.layers} layers of {sizes.heads} heads")
        by_layer.setdefault(head.layer, []).append(head)
    return by_layer


@contextmanager
def _hooked(loaded: LoadedModel, layers: Iterable[int], record: _Record) -> Iterator[None]:
    """Call ``record(layer, module, args, output)`` for the attention module of each of ``layers``."""
    # Not output_attentions, which keeps the weights of every layer at once: gigabytes for a long prompt. An attention
    # module owns the projection of its heads' outputs, and returns its weights beside its output.
    path = loaded.anatomy.family.head_output.rpartition(".")[0]
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
        # And back: it turns None into a default, and refuses what is not installed although the model may have been
        # loaded with it.
        for config, implementation in before:
            config._attn_implementation = implementation
