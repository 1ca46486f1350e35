"""Attention patterns of heads on one prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steering_profiles.errors import ModelError
from steering_profiles.fitting.components import Component
from steering_profiles.models import LoadedModel
from steering_profiles.models.attention import attention_weights
from steering_profiles.tasks.task import Example
from steering_profiles.tokenization import Vocabulary


@dataclass(frozen=True, eq=False)
class HeadAttention:
    """Attention weights of one head on a prompt."""

    component: Component
    tokens: tuple[str, ...]
    weights: np.ndarray[Any, np.dtype[np.float32]]
    """``[tokens, tokens]``: row ``i`` has the weights of token ``i`` on tokens 0..i, which sum to 1."""


@torch.inference_mode()
def attention_patterns(
    loaded: LoadedModel, heads: Sequence[Component], example: Example, most: int = 6
) -> list[HeadAttention]:
    """Return the attention patterns of the first ``most`` of ``heads`` in the unsteered model on ``example``'s prompt.

    Neurons among ``heads`` are skipped. The model's attention implementation is restored afterwards.

    Raises:
        ModelError: a head does not exist, or the model does not return attention weights.
    """
    shown = list(dict.fromkeys(head for head in heads if head.kind == "head"))[:most]
    wanted = _by_layer(loaded, shown)
    weights: dict[Component, np.ndarray[Any, np.dtype[np.float32]]] = {}

    def take(layer: int, given: Tensor) -> None:
        for head in wanted[layer]:
            weights[head] = given[0, head.index].float().cpu().numpy()

    with attention_weights(loaded, wanted, take):
        tokens = torch.tensor([example.prompt], device=loaded.input_device)
        loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    texts = tuple(map(Vocabulary(loaded.tokenizer).text_of, example.prompt))
    return [HeadAttention(head, texts, weights[head]) for head in shown]


def _by_layer(loaded: LoadedModel, heads: Sequence[Component]) -> dict[int, list[Component]]:
    sizes = loaded.anatomy.sizes
    by_layer: dict[int, list[Component]] = {}
    for head in heads:
        if not (0 <= head.layer < sizes.layers and 0 <= head.index < sizes.heads):
            raise ModelError(
                f"head {head} does not exist; {loaded.name} has {sizes.layers} layers of {sizes.heads} heads"
            )
        by_layer.setdefault(head.layer, []).append(head)
    return by_layer
